"""The calibrated reward of a step: how likely the policy finds it, and how well it fits the image.

R = image_weight * image part + (1 - image_weight) * likelihood part
(arXiv:2405.14622, equation 5). The calibrations differ in what the two parts are:

- `centred` (ours): each raw part minus its mean over the policy's own captions, over its
  standard deviation, clipped. A usual sentence is worth about `offset`, a bad one less than
  nothing, and a bare end of response exactly 0: rewards may be summed over a response.
- `literal` (the paper): max(100 cos, 0) and the likelihood as they are. Every sentence with a
  positive cosine raises the sum, a hallucinated one too: docs/rewards.md.
- `sibling_rank` (the released code): position among the siblings over their number, best 1/n,
  negated here since our rewards are better when larger.

All of it is pure: the raw parts are stored with each step, so a stored tree can be
rewarded anew (`recalibrate`) without any engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field, model_validator

from csr.config import ComponentConfig
from csr.errors import ConfigError
from csr.protocols import Similarity, StepScorer
from csr.types import ResponseTree, StepGroup, StepNode, StepScore
from rewards.likelihood import LikelihoodKind, likelihood
from rewards.raw import RawParts, measure
from rewards.statistics import Moments, Statistics, StatisticsScope

Calibration = Literal["centred", "literal", "sibling_rank"]


class Config(ComponentConfig):
    """How a step's raw parts become its reward."""

    calibration: Calibration = "centred"
    """What the parts are measured against; see the module's text."""
    image_weight: float = Field(default=0.9, ge=0, le=1)
    """λ: share of the image part (arXiv:2405.14622, section 4.1). At 0 no similarity is needed."""
    likelihood: LikelihoodKind = "mean_logprob"
    """R_T: `mean_logprob` in nats, or the paper's `product` of probabilities."""
    statistics_scope: StatisticsScope = "first"
    """`centred`: whether the likelihood's mean and deviation come from first sentences or all."""
    offset: float = 0.5
    """`centred`: added to the image part, in standard deviations. Larger means longer responses:
    at 0 a usual sentence is worth nothing more than stopping, and captions shrink."""
    clip_low: float = -2.0
    """`centred`: smallest value of either part, in standard deviations."""
    clip_high: float = 1.0
    """`centred`: largest value of either part, so that no single sentence decides a response."""
    redundancy_threshold: float = Field(default=0.95, ge=-1, le=1)
    """`centred`: a sentence with a larger text-text cosine to an earlier one says it again."""
    redundancy_penalty: float = Field(default=0.25, ge=0)
    """`centred`: such a sentence gets min(R, 0) minus this."""
    clamp_similarity_at_zero: bool = True
    """`literal`: max(100 cos, 0), as the paper has it, or 100 cos."""

    @model_validator(mode="after")
    def _check_clip(self) -> Config:
        if not self.clip_low < self.clip_high:
            raise ValueError(
                f"clip_low {self.clip_low} is not below clip_high {self.clip_high}: every step "
                "would get the same reward"
            )
        return self


REWARD_PRESETS: dict[str, Config] = {
    "default": Config(),
    "paper": Config(calibration="literal", likelihood="product"),
    "released": Config(
        calibration="sibling_rank", likelihood="mean_logprob", clamp_similarity_at_zero=False
    ),
}
"""The reward that belongs to each preset of `csr/sources/csr.py`, under the same names."""


def build(
    config: Config, similarity: Similarity | None = None, statistics: Statistics | None = None
) -> StepScorer:
    """A scorer that measures and calibrates. ConfigError where something it needs is missing."""
    check_inputs(config, statistics)
    if config.image_weight > 0 and similarity is None:
        raise ConfigError(
            f"image_weight is {config.image_weight}, but no similarity is configured to compare "
            "image and text. Configure one, or set image_weight to 0."
        )
    return CalibratedScorer(config, similarity, statistics)


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


class CalibratedScorer:
    """Scores all groups of a level with one measurement. Implements `StepScorer`."""

    def __init__(
        self, config: Config, similarity: Similarity | None, statistics: Statistics | None
    ) -> None:
        self._config = config
        self._similarity = similarity
        self._statistics = statistics

    def score(self, groups: Sequence[StepGroup]) -> list[list[StepScore]]:
        """One score for each candidate of each group. NumericalError names the prompt."""
        raw_groups = measure(groups, self._similarity, self._config.likelihood)
        return [calibrate(raw, self._statistics, self._config) for raw in raw_groups]


def calibrate(
    siblings: Sequence[RawParts], statistics: Statistics | None, config: Config
) -> list[StepScore]:
    """The scores of the candidates that share one prefix, from their raw parts.

    ConfigError where image_weight is above 0 and the image part was never measured.
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
    return [
        _combine(raw, likelihood_part, image_part, config)
        for raw, likelihood_part, image_part in zip(siblings, likelihoods, images, strict=True)
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
    return RawParts(
        likelihood=likelihood(node.step, kind),
        image_similarity=node.score.breakdown.get("image_similarity"),
        redundancy=node.score.breakdown.get("redundancy"),
        is_sentence=node.step.has_words,
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
    raw: RawParts, likelihood_part: float, image_part: float | None, config: Config
) -> StepScore:
    reward = (1 - config.image_weight) * likelihood_part
    if image_part is not None:
        reward += config.image_weight * image_part
    if config.calibration == "centred" and _is_redundant(raw, config):
        reward = min(reward, 0.0) - config.redundancy_penalty
    parts = {
        "likelihood": raw.likelihood,
        "image_similarity": raw.image_similarity,
        "redundancy": raw.redundancy,
        "likelihood_calibrated": likelihood_part,
        "image_similarity_calibrated": image_part,
    }
    return StepScore(
        reward=reward, breakdown={name: part for name, part in parts.items() if part is not None}
    )


def _is_redundant(raw: RawParts, config: Config) -> bool:
    return raw.redundancy is not None and raw.redundancy > config.redundancy_threshold
