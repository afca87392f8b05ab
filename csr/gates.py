"""Gates: whether an iteration did harm, by held-out figures and by its pairs.

Preference training on a model's own answers can go wrong in ways that one figure hides: captions
grow short and so hallucinate less, or the reward is met by saying more. Each gate watches one
such way. Limits are loose: a gate stops a collapse, it does not judge an improvement
(docs/gates.md has how far healthy and broken runs were from each).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from csr.config import ComponentConfig
from csr.protocols import Metrics

NOISE_ERRORS = 3.0
"""A change smaller than this many standard errors of a difference is taken for chance."""


class Config(ComponentConfig):
    """One limit a gate; null switches that gate off."""

    on_trip: Literal["stop", "continue"] = "stop"
    """Whether a held iteration ends the run, or the next one starts from the policy before."""
    max_recall_drop: float | None = Field(default=0.05, ge=0)
    """Fall of recall from the base: what is no longer said cannot be wrong."""
    max_length_drift: float | None = Field(default=0.2, ge=0)
    """Change of the mean response, in sentences and in tokens, over the base's."""
    max_repetition_rise: float | None = Field(default=0.1, ge=0)
    """Rise, from the base, of responses that repeat a sentence and of repeated four-word runs."""
    max_distinct_drop: float | None = Field(default=0.3, ge=0)
    """Fall of distinct word pairs (distinct-2) over the base's."""
    max_empty_rise: float | None = Field(default=0.05, ge=0)
    """Rise, from the base, of responses without a word."""
    max_truncated_rise: float | None = Field(default=0.1, ge=0)
    """Rise, from the base, of responses cut by the token limit."""
    max_hallucination_rise: float | None = Field(default=0.05, ge=0)
    """Rise of CHAIR_s from the accepted iteration before."""
    reward_hacking: bool = True
    """Trips where rewards of sampled responses rose while their policy hallucinates more."""
    min_margin_share: float | None = Field(default=0.1, ge=0)
    """Mean margin over the mean size of the rewards: below, chosen is hardly better."""
    max_training_margin: float | None = Field(default=3.0, gt=0)
    """DPO's own margin after training, beta included: above, the policy ran away."""
    max_equal_share: float | None = Field(default=0.2, ge=0, le=1)
    """Share of prompts whose two responses were the same text."""
    max_pair_length_difference: float | None = Field(default=0.4, ge=0, le=1)
    """Difference of mean lengths of chosen and rejected, over the longer: DPO learns length."""
    max_kl_nats_per_token: float | None = Field(default=0.5, gt=0)
    """Divergence from the base policy, per token of the new policy's own held-out answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the gates look at. A figure that was not measured is absent."""

    base: Metrics
    """Held-out figures of the base model."""
    before: Metrics
    """Of the policy that the iteration started from."""
    now: Metrics
    """Of the policy that it trained."""
    two_before: Metrics = field(default_factory=dict)
    """Of the policy that the iteration before started from; empty in the first."""
    pairs: Metrics = field(default_factory=dict)
    """The pair stage's figures: `mean_margin`, `mean_response_reward`, ..."""
    pairs_before: Metrics = field(default_factory=dict)
    """Those of the iteration before; empty in the first."""
    training: Metrics = field(default_factory=dict)
    """The train stage's figures."""
    kl_nats_per_token: float | None = None
    """None where it was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One gate's word."""

    gate: str
    value: float | None
    """None where what it needs was not measured."""
    limit: float | None
    tripped: bool
    message: str
    bound: Literal["at most", "at least", ""] = ""
    """Which side of the limit is fine; "" in verdicts stored before this was noted."""


def judge(evidence: Evidence, config: Config) -> tuple[Verdict, ...]:
    """One verdict for each gate that is on, and one for figures that are no numbers."""
    verdicts = [
        _finite(evidence),
        _recall(evidence, config.max_recall_drop),
        *(_length(evidence, name, config.max_length_drift) for name in _LENGTHS),
        *(_rise(evidence, *each, config.max_repetition_rise) for each in _REPETITIONS),
        _rise(evidence, "empty_share", "responses without a word", config.max_empty_rise),
        _rise(evidence, "truncated_share", "responses cut by the limit", config.max_truncated_rise),
        _distinct(evidence, config.max_distinct_drop),
        _hallucination(evidence, config.max_hallucination_rise),
        _reward_hacking(evidence) if config.reward_hacking else None,
        _margin(evidence, config.min_margin_share),
        _training_margin(evidence, config.max_training_margin),
        _equal(evidence, config.max_equal_share),
        _pair_length(evidence, config.max_pair_length_difference),
        _kl(evidence, config.max_kl_nats_per_token),
    ]
    return tuple(verdict for verdict in verdicts if verdict is not None)


_LENGTHS = ("mean_response_sentences", "mean_response_tokens")
_REPETITIONS = (
    ("repetition", "responses that repeat a sentence"),
    ("repeated_4gram_share", "repeated four-word sequences"),
)


def _verdict(
    gate: str,
    value: float | None,
    limit: float | None,
    said: str,
    *,
    bound: Literal["at most", "at least"] = "at most",
    noise: float = 0.0,
) -> Verdict | None:
    """Trips where `value` passes `limit`, or `noise` where that is more; None without a limit.

    NaN, which compares false with everything, trips too.
    """
    if limit is None:
        return None
    limit = max(limit, noise)
    if value is None:
        return Verdict(
            gate=gate, value=None, limit=limit, tripped=False, message="not measured", bound=bound
        )
    fine = value <= limit if bound == "at most" else value >= limit
    return Verdict(
        gate=gate,
        value=value,
        limit=limit,
        tripped=not fine,
        message="" if fine else said,
        bound=bound,
    )


def _finite(evidence: Evidence) -> Verdict | None:
    parts = {
        "held-out": evidence.now,
        "pairs": evidence.pairs,
        "training": evidence.training,
        "divergence": {"kl": evidence.kl_nats_per_token or 0.0},
    }
    broken = [
        f"{part}.{name}"
        for part, figures in parts.items()
        for name, value in figures.items()
        if not math.isfinite(value)
    ]
    said = f"No finite number: {', '.join(broken[:5])}. Lower the learning rate, or use float32."
    return _verdict("finite", float(len(broken)), 0.0, said)


def _recall(evidence: Evidence, limit: float | None) -> Verdict | None:
    said = (
        "The policy names less of what the images show: hallucination bought with silence. Give "
        "the image part more weight, raise the reward's offset, or train less."
    )
    fall = _difference("recall", evidence.now, evidence.base)
    noise = _noise("recall", evidence.base, evidence.now)
    return _verdict("recall_drop", fall, limit, said, noise=noise)


def _length(evidence: Evidence, name: str, limit: float | None) -> Verdict | None:
    said = (
        "Responses changed in length, and with it what hallucination figures mean. Narrow the "
        "pair filter's max_length_difference, move the reward's offset, or train less."
    )
    change = _relative_change(name, evidence.base, evidence.now)
    return _verdict(f"length_drift_{name.rsplit('_', 1)[1]}", _size(change), limit, said)


def _rise(evidence: Evidence, name: str, what: str, limit: float | None) -> Verdict | None:
    rise = _difference(name, evidence.base, evidence.now)
    said = f"More {what} than the base has. Raise the redundancy penalty, or train less."
    return _verdict(f"{name}_rise", rise, limit, said)


def _distinct(evidence: Evidence, limit: float | None) -> Verdict | None:
    change = _relative_change("distinct_2", evidence.base, evidence.now)
    said = "Responses became alike. Train less, or sample from more different prompts."
    return _verdict("distinct_2_drop", None if change is None else 0.0 - change, limit, said)


def _hallucination(evidence: Evidence, limit: float | None) -> Verdict | None:
    rise = _difference("chair_s", evidence.before, evidence.now)
    said = (
        "More responses name what the image does not show than before the iteration. Look at the "
        "pairs: the reward may pay for saying more (docs/rewards.md)."
    )
    noise = _noise("chair_s", evidence.before, evidence.now)
    return _verdict("hallucination_rise", rise, limit, said, noise=noise)


def _reward_hacking(evidence: Evidence) -> Verdict | None:
    """Of the policy that sampled the pairs: its rewards and its hallucination, each to the last."""
    reward = _difference("mean_response_reward", evidence.pairs_before, evidence.pairs)
    chair = _difference("chair_s", evidence.two_before, evidence.before)
    said = (
        "The reward of sampled responses rose while the policy that sampled them names more that "
        "is not there: the reward pays for hallucination. Change the reward, not the training."
    )
    if reward is None or chair is None:
        return _verdict("reward_hacking", None, 0.0, said)
    beyond_chance = chair > _noise("chair_s", evidence.two_before, evidence.before)
    hacked = chair if reward > 0 and beyond_chance else 0.0
    return _verdict("reward_hacking", hacked, 0.0, said)


def _margin(evidence: Evidence, limit: float | None) -> Verdict | None:
    pairs = evidence.pairs
    names = ("mean_margin", "mean_chosen_reward", "mean_rejected_reward")
    said = (
        "Chosen responses have hardly a better reward than rejected ones: training learns noise. "
        "Raise the pair filter's min_margin_quantile, or sample more candidates."
    )
    if any(name not in pairs for name in names):
        return _verdict("margin_share", None, limit, said, bound="at least")
    margin, *rewards = (pairs[name] for name in names)
    size = math.fsum(map(abs, rewards)) / 2
    share = margin / size if size else 0.0
    return _verdict("margin_share", share, limit, said, bound="at least")


def _training_margin(evidence: Evidence, limit: float | None) -> Verdict | None:
    said = (
        "After training, chosen and rejected are far apart in the policy's own eyes: it ran away "
        "from its reference. Lower the learning rate or the epochs, or raise beta."
    )
    return _verdict("training_margin", evidence.training.get("margin"), limit, said)


def _equal(evidence: Evidence, limit: float | None) -> Verdict | None:
    said = (
        "Too many prompts gave the same text twice: the policy has little left to say. Raise the "
        "temperature, or stop here."
    )
    return _verdict("equal_share", evidence.pairs.get("equal_share"), limit, said)


def _pair_length(evidence: Evidence, limit: float | None) -> Verdict | None:
    lengths = [evidence.pairs.get(f"mean_{side}_tokens") for side in ("chosen", "rejected")]
    known = [length for length in lengths if length is not None]
    longer = max(known, default=0.0)
    difference = abs(known[0] - known[1]) / longer if len(known) == 2 and longer else None
    said = (
        "Chosen and rejected responses differ in length more than in anything else, and length is "
        "what training learns then. Narrow the pair filter's max_length_difference."
    )
    return _verdict("pair_length_difference", difference, limit, said)


def _kl(evidence: Evidence, limit: float | None) -> Verdict | None:
    said = "The policy is far from the base model. Lower the learning rate, or raise beta."
    return _verdict("kl_nats_per_token", evidence.kl_nats_per_token, limit, said)


def _difference(name: str, one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    return other[name] - one[name] if name in one and name in other else None


def _relative_change(
    name: str, one: Mapping[str, float], other: Mapping[str, float]
) -> float | None:
    """None where either was not measured, or there is nothing to be relative to."""
    change = _difference(name, one, other)
    return None if change is None or one[name] == 0 else change / one[name]


def _size(value: float | None) -> float | None:
    return None if value is None else abs(value)


def _noise(name: str, one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """What chance alone may make of a difference; 0 where the errors are unknown."""
    errors = [figures.get(f"{name}_se", 0.0) for figures in (one, other)]
    return NOISE_ERRORS * math.hypot(*errors)
