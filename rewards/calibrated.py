"""The calibrated reward of a step: how likely the policy finds it, and how well it fits the image.

R = image_weight * image part + (1 - image_weight) * likelihood part
(arXiv:2405.14622, equation 5). Further evidence, such as the PMI of text and image
(`rewards/pmi.py`), takes its own share: the weights of all parts sum to one, and the likelihood
has what the others leave. The calibrations differ in what the parts are:

- `centred` (ours): each raw part minus its mean over the policy's own captions, over its
  standard deviation, clipped. A usual sentence is worth about `offset`, a bad one less than
  nothing, and a bare end of response exactly 0: rewards may be summed over a response.
- `literal` (the paper): max(100 cos, 0) and the others as they are. Every sentence with a
  positive cosine raises the sum, a hallucinated one too: docs/rewards.md.
- `sibling_rank` (the released code): position among the siblings over their number, best 1/n,
  negated here since our rewards are better when larger.

All of it is pure: the raw parts are stored with each step, so a stored tree can be
rewarded anew (`recalibrate`) without any engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from csr.errors import ConfigError
from csr.protocols import Sampler, Similarity, StepScorer
from csr.types import ResponseTree, StepGroup, StepNode, StepScore
from rewards.likelihood import LikelihoodKind, likelihood
from rewards.pmi import pmi
from rewards.raw import Evidence, RawParts, image_text_similarity, measure
from rewards.self_check import self_check
from rewards.settings import ASKS_SAMPLER, EVIDENCE, Config
from rewards.statistics import Moments, Statistics


def build(
    config: Config,
    similarity: Similarity | None = None,
    statistics: Statistics | None = None,
    sampler: Sampler | None = None,
    second_similarity: Similarity | None = None,
) -> StepScorer:
    """A scorer that measures and calibrates. ConfigError where something it needs is missing.

    `sampler` speaks for the policy whose steps are scored; evidence alone needs it.
    """
    check_inputs(config, statistics)
    if config.image_weight > 0 and similarity is None:
        raise ConfigError(
            f"image_weight is {config.image_weight}, but no similarity is configured to compare "
            "image and text. Configure one, or set image_weight to 0."
        )
    return CalibratedScorer(
        config, similarity, statistics, evidence_of(config, sampler, second_similarity)
    )


def evidence_of(
    config: Config, sampler: Sampler | None, second_similarity: Similarity | None = None
) -> dict[str, Evidence]:
    """What measures the evidence that counts, by name; nothing where its weights are 0."""
    known: dict[str, Evidence] = {}
    if second_similarity is not None:
        known["second_similarity"] = partial(image_text_similarity, similarity=second_similarity)
    if sampler is not None:
        known["pmi"] = partial(pmi, sampler=sampler, content_free=config.pmi_content_free)
        known["self_check"] = partial(self_check, sampler=sampler, config=config.self_check)
    assert known.keys() >= config.evidence_weights.keys(), "whoever is asked is at hand"
    return {name: known[name] for name in config.evidence_weights}


def check_inputs(config: Config, statistics: Statistics | None) -> None:
    """ConfigError where `centred` lacks statistics, or they measure something else."""
    if config.calibration != "centred":
        return
    if statistics is None:
        raise ConfigError(
            "The centred calibration needs the statistics of the policy's own captions; none "
            "were given. Measure them first (rewards.statistics), or choose another calibration."
        )
    if statistics.likelihood_kind != config.likelihood:
        raise ConfigError(
            f"The statistics are of the likelihood {statistics.likelihood_kind!r}, the reward "
            f"uses {config.likelihood!r}. Measure the statistics anew."
        )
    if config.image_weight > 0 and statistics.image_similarity is None:
        raise ConfigError(
            f"image_weight is {config.image_weight}, but the statistics hold no image "
            "similarity. Measure them anew with a similarity, or set image_weight to 0."
        )
    for name in config.evidence_weights:
        if name not in statistics.evidence:
            raise ConfigError(
                f"{name}_weight is {config.evidence_weights[name]:g}, but the statistics hold no "
                f"{name}. Measure them anew (rerun from measure), or set {name}_weight to 0."
            )
        asked, wanted = statistics.evidence_inputs.get(name), config.evidence_inputs[name]
        if asked != wanted:
            raise ConfigError(
                f"The statistics hold {name} as measured by {asked}, and the reward asks for "
                f"{wanted}. Measure them anew (rerun from measure)."
            )


class CalibratedScorer:
    """Scores all groups with one measurement. Implements `StepScorer`."""

    def __init__(
        self,
        config: Config,
        similarity: Similarity | None,
        statistics: Statistics | None,
        evidence: Mapping[str, Evidence],
    ) -> None:
        self._config = config
        self._similarity = similarity
        self._statistics = statistics
        self._evidence = evidence

    @property
    def asks_sampler(self) -> bool:
        """See `StepScorer.asks_sampler`."""
        return not ASKS_SAMPLER.isdisjoint(self._evidence)

    def score(self, groups: Sequence[StepGroup]) -> list[list[StepScore]]:
        """One score for each candidate of each group. NumericalError names the prompt."""
        raw_groups = measure(groups, self._similarity, self._config.likelihood, self._evidence)
        return [calibrate(raw, self._statistics, self._config) for raw in raw_groups]


def calibrate(
    siblings: Sequence[RawParts], statistics: Statistics | None, config: Config
) -> list[StepScore]:
    """The scores of the candidates that share one prefix, from their raw parts.

    ConfigError where a part has a weight above 0 and was never measured.
    """
    check_inputs(config, statistics)
    spoken = [raw.is_sentence for raw in siblings]
    likelihoods = _calibrate_part(
        [raw.likelihood for raw in siblings],
        spoken,
        statistics.likelihood if statistics else None,
        0.0,
        config,
    )
    images = _calibrated_images(siblings, spoken, statistics, config)
    evidence = _calibrated_evidence(siblings, spoken, statistics, config)
    return [
        _combine(raw, likelihood_part, image_part, found, config)
        for raw, likelihood_part, image_part, found in zip(
            siblings, likelihoods, images, evidence, strict=True
        )
    ]


def recalibrate(tree: ResponseTree, statistics: Statistics | None, config: Config) -> ResponseTree:
    """The tree with every step rewarded anew from its stored raw parts.

    Which nodes were expanded stays what the search decided, and so does
    `cumulative_reward`, the score it decided by; pairing reads the new rewards.
    """
    families: dict[str | None, list[StepNode]] = {}
    for node in tree.nodes:
        families.setdefault(node.parent_id, []).append(node)
    scores: dict[str, StepScore] = {}
    for family in families.values():
        raw = [_stored_parts(node, config.likelihood) for node in family]
        for node, score in zip(family, calibrate(raw, statistics, config), strict=True):
            scores[node.node_id] = score
    return replace(
        tree, nodes=tuple(replace(node, score=scores[node.node_id]) for node in tree.nodes)
    )


def _stored_parts(node: StepNode, kind: LikelihoodKind) -> RawParts:
    """Raw parts of a stored node; the likelihood follows from its tokens, whatever was stored."""
    stored = node.score.breakdown
    return RawParts(
        likelihood=likelihood(node.step, kind),
        image_similarity=stored.get("image_similarity"),
        redundancy=stored.get("redundancy"),
        is_sentence=node.step.has_words,
        evidence={name: stored[name] for name in EVIDENCE if name in stored},
    )


def _calibrated_images(
    siblings: Sequence[RawParts],
    spoken: Sequence[bool],
    statistics: Statistics | None,
    config: Config,
) -> Sequence[float | None]:
    """The image part of each sibling; None for all where it was not measured."""
    measured = [raw.image_similarity for raw in siblings if raw.image_similarity is not None]
    moments = statistics.image_similarity if statistics else None
    if len(measured) < len(siblings) and config.image_weight > 0:
        raise ConfigError(
            f"image_weight is {config.image_weight}, but these steps were scored without an image "
            "similarity. Set image_weight to 0, or sample anew with a similarity."
        )
    if len(measured) < len(siblings) or (config.calibration == "centred" and moments is None):
        return [None] * len(siblings)
    if config.calibration == "literal" and config.clamp_similarity_at_zero:
        return [max(value, 0.0) for value in measured]
    return _calibrate_part(measured, spoken, moments, config.offset, config)


def _calibrated_evidence(
    siblings: Sequence[RawParts],
    spoken: Sequence[bool],
    statistics: Statistics | None,
    config: Config,
) -> list[dict[str, float]]:
    """The evidence that counts, calibrated, of each sibling by name."""
    found: list[dict[str, float]] = [{} for _ in siblings]
    for name, weight in config.evidence_weights.items():
        if any(name not in raw.evidence for raw in siblings):
            raise ConfigError(
                f"{name}_weight is {weight:g}, but these steps were scored without it. Set "
                f"{name}_weight to 0, or sample anew."
            )
        moments = statistics.evidence.get(name) if statistics else None
        values = [raw.evidence[name] for raw in siblings]
        parts = _calibrate_part(values, spoken, moments, config.offset, config)
        for each, part in zip(found, parts, strict=True):
            each[name] = part
    return found


def _calibrate_part(
    values: Sequence[float],
    spoken: Sequence[bool],
    moments: Moments | None,
    offset: float,
    config: Config,
) -> list[float]:
    """One part of all siblings. A step without words gets 0 unless the values are literal."""
    if config.calibration == "literal":
        return list(values)
    if config.calibration == "sibling_rank":
        return _negated_ranks(values, spoken)
    assert moments is not None, "check_inputs lets no centred calibration pass without"
    centred = [(value - moments.mean) / moments.sd + offset for value in values]
    return [
        min(max(value, config.clip_low), config.clip_high) if says else 0.0
        for value, says in zip(centred, spoken, strict=True)
    ]


def _negated_ranks(values: Sequence[float], spoken: Sequence[bool]) -> list[float]:
    """Minus position over number among the siblings with words; equal values share the better.

    The best of n gets -1/n, the worst -1, and so does an only child: this is what the
    released code does, and why filtering siblings changes the rewards of the others.
    """
    ranked = [value for value, says in zip(values, spoken, strict=True) if says]
    return [
        -(1 + sum(other > value for other in ranked)) / len(ranked) if says else 0.0
        for value, says in zip(values, spoken, strict=True)
    ]


def _combine(
    raw: RawParts,
    likelihood_part: float,
    image_part: float | None,
    evidence: Mapping[str, float],
    config: Config,
) -> StepScore:
    reward = config.likelihood_weight * likelihood_part
    if image_part is not None:
        reward += config.image_weight * image_part
    for name, weight in config.evidence_weights.items():
        reward += weight * evidence[name]
    if config.calibration == "centred" and _is_redundant(raw, config):
        reward = min(reward, 0.0) - config.redundancy_penalty
    parts = {
        "likelihood": raw.likelihood,
        "image_similarity": raw.image_similarity,
        "redundancy": raw.redundancy,
        "likelihood_calibrated": likelihood_part,
        "image_similarity_calibrated": image_part,
        **raw.evidence,
        **{f"{name}_calibrated": part for name, part in evidence.items()},
    }
    return StepScore(
        reward=reward, breakdown={name: part for name, part in parts.items() if part is not None}
    )


def _is_redundant(raw: RawParts, config: Config) -> bool:
    return raw.redundancy is not None and raw.redundancy > config.redundancy_threshold
