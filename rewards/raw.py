"""Measures the raw parts of a reward, before any calibration, in one batched pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from csr.errors import NumericalError
from csr.protocols import Similarity
from csr.types import StepCandidate, StepGroup
from rewards.likelihood import LikelihoodKind, likelihood


@dataclass(frozen=True, slots=True, kw_only=True)
class RawParts:
    """What is measured of one step. The similarity parts are None where nothing measured them.

    Example: `RawParts(likelihood=-0.4, image_similarity=27.5, redundancy=0.31, is_sentence=True)`
    """

    likelihood: float
    """R_T: nats, or a probability, as `LikelihoodKind` says."""
    image_similarity: float | None
    """100 x cosine of image and sentence, not clamped; 0 for a step without words."""
    redundancy: float | None
    """Largest cosine with an earlier sentence of the response; 0 where there is none."""
    is_sentence: bool
    """False for a bare end of response, or any other step without words."""


def measure(
    groups: Sequence[StepGroup], similarity: Similarity | None, kind: LikelihoodKind
) -> list[list[RawParts]]:
    """The raw parts of each candidate of each group, in order.

    One `image_text` and one `text_text` call in all. Only the new sentence is compared
    with the image, never the response so far (arXiv:2405.14622, section 3.1).
    NumericalError names the prompt where a value is not finite.
    """
    steps = [_Step(group, candidate) for group in groups for candidate in group.candidates]
    likelihoods = [likelihood(step.candidate, kind) for step in steps]
    _check_finite("likelihood", likelihoods, steps)
    images = _image_similarities(steps, similarity)
    redundancies = _redundancies(steps, similarity)
    parts = iter(
        RawParts(
            likelihood=p, image_similarity=image, redundancy=redundancy, is_sentence=step.has_words
        )
        for step, p, image, redundancy in zip(steps, likelihoods, images, redundancies, strict=True)
    )
    return [[next(parts) for _ in group.candidates] for group in groups]


@dataclass(frozen=True, slots=True)
class _Step:
    """A candidate with the group it stands in."""

    group: StepGroup
    candidate: StepCandidate

    @property
    def text(self) -> str:
        return self.candidate.text.strip()

    @property
    def has_words(self) -> bool:
        return self.candidate.has_words

    def earlier_texts(self) -> list[str]:
        """The sentences of the response so far; none for a step that says nothing."""
        if not self.has_words:
            return []
        return [step.text.strip() for step in self.group.prefix if step.has_words]


def _image_similarities(
    steps: Sequence[_Step], similarity: Similarity | None
) -> Sequence[float | None]:
    if similarity is None:
        return [None] * len(steps)
    spoken = [step for step in steps if step.has_words]
    images = [step.group.prompt.image for step in spoken]
    cosines = similarity.image_text(images, [step.text for step in spoken]) if spoken else []
    _check_finite("image_similarity", cosines, spoken)
    remaining = iter(cosines)
    return [100.0 * next(remaining) if step.has_words else 0.0 for step in steps]


def _redundancies(steps: Sequence[_Step], similarity: Similarity | None) -> Sequence[float | None]:
    if similarity is None:
        return [None] * len(steps)
    pairs = [(step, earlier) for step in steps for earlier in step.earlier_texts()]
    left = [step.text for step, _ in pairs]
    cosines = similarity.text_text(left, [earlier for _, earlier in pairs]) if pairs else []
    _check_finite("redundancy", cosines, [step for step, _ in pairs])
    remaining = iter(cosines)
    return [max((next(remaining) for _ in step.earlier_texts()), default=0.0) for step in steps]


def _check_finite(name: str, values: Sequence[float], steps: Sequence[_Step]) -> None:
    for value, step in zip(values, steps, strict=True):
        if not math.isfinite(value):
            raise NumericalError(
                f"The {name} of the step {step.text[:60]!r} for prompt "
                f"{step.group.prompt.prompt_id!r} is {value}: a reward cannot be made of it. Look "
                "for overflow in the policy or the similarity model (try fp32)."
            )
