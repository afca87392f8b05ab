"""The settings of a step's reward: which parts count, and what they are measured against."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from csr.config import ComponentConfig
from csr.label_calibration import ContentFree
from rewards.likelihood import LikelihoodKind
from rewards.self_check import Config as SelfCheckConfig
from rewards.statistics import StatisticsScope

Calibration = Literal["centred", "literal", "sibling_rank"]
EVIDENCE = ("second_similarity", "pmi", "self_check")
"""Evidence beside similarity and likelihood: its names in a step's breakdown."""
ASKS_SAMPLER = frozenset({"pmi", "self_check"})
"""Evidence that the policy itself gives."""
_ROUNDING = 1e-9


class Config(ComponentConfig):
    """How a step's raw parts become its reward: `rewards/calibrated.py`."""

    calibration: Calibration = "centred"
    """What the parts are measured against; see that module's text."""
    image_weight: float = Field(default=0.9, ge=0, le=1)
    """λ: share of the image part (arXiv:2405.14622, section 4.1). At 0 no similarity is needed."""
    second_similarity_weight: float = Field(default=0.0, ge=0, le=1)
    """Share of a second image-text model, the recipe's `second_similarity`. Each is measured
    against its own mean and deviation, so neither outvotes the other by a wider spread."""
    pmi_weight: float = Field(default=0.0, ge=0, le=1)
    """Share of the PMI part: how much better the policy predicts a sentence with the image than
    without. At 0 it is not measured; above, each level costs one more scoring pass."""
    pmi_content_free: ContentFree = "none"
    """What the PMI part compares with: the prompt without its image, with a grey one, or the mean
    of both. Not used at a weight of 0."""
    self_check_weight: float = Field(default=0.0, ge=0, le=1)
    """Share of the self-check part: the policy's own "yes" when it is asked whether the image shows
    what the sentence says. At 0 it is not asked; above, each sentence is some eight questions."""
    self_check: SelfCheckConfig = SelfCheckConfig()
    """How it is asked. Not used at a weight of 0."""
    likelihood: LikelihoodKind = "mean_logprob"
    """R_T: `mean_logprob` in nats, or the paper's `product` of probabilities."""
    statistics_scope: StatisticsScope = "first"
    """`centred`: whether the likelihood's mean and deviation come from first sentences or all."""
    offset: float = 0.5
    """`centred`: added to the image part and to evidence, in standard deviations. Larger means
    longer responses: at 0 a usual sentence is worth nothing more than stopping, and captions
    shrink."""
    clip_low: float = -2.0
    """`centred`: smallest value of each part, in standard deviations."""
    clip_high: float = 1.0
    """`centred`: largest value of each part, so that no single sentence decides a response."""
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

    @model_validator(mode="after")
    def _check_weights(self) -> Config:
        weights = {
            "image_weight": self.image_weight,
            "second_similarity_weight": self.second_similarity_weight,
            "pmi_weight": self.pmi_weight,
            "self_check_weight": self.self_check_weight,
        }
        if math.fsum(weights.values()) > 1 + _ROUNDING:
            told = " + ".join(f"{name} {value:g}" for name, value in weights.items() if value)
            raise ValueError(
                f"{told} is more than 1, which leaves the likelihood less than nothing. Lower one "
                f"(image_weight is {Config.model_fields['image_weight'].default:g} where it is "
                "not given)"
            )
        return self

    @property
    def evidence_weights(self) -> dict[str, float]:
        """Evidence -> its share, of that which counts."""
        weights = {
            "second_similarity": self.second_similarity_weight,
            "pmi": self.pmi_weight,
            "self_check": self.self_check_weight,
        }
        return {name: weight for name, weight in weights.items() if weight > 0}

    @property
    def evidence_inputs(self) -> dict[str, dict[str, Any]]:
        """Evidence -> the settings that decide its raw values, of that which counts."""
        settings: dict[str, dict[str, Any]] = {
            "second_similarity": {},  # the model itself counts as the stage's own input
            "pmi": {"content_free": self.pmi_content_free},
            "self_check": self.self_check.model_dump(mode="json"),
        }
        return {name: settings[name] for name in self.evidence_weights}

    @property
    def likelihood_weight(self) -> float:
        """What the other parts leave."""
        return max(1 - self.image_weight - math.fsum(self.evidence_weights.values()), 0.0)


REWARD_PRESETS: dict[str, Config] = {
    "default": Config(),
    "paper": Config(calibration="literal", likelihood="product"),
    "released": Config(
        calibration="sibling_rank", likelihood="mean_logprob", clamp_similarity_at_zero=False
    ),
}
"""The reward that belongs to each preset of `csr/sources/csr.py`, under the same names."""
