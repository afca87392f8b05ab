"""Measures the raw parts of a reward, before any calibration, in one batched pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

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
    evidence: Mapping[str, float] = field(default_factory=dict)
    """What else speaks for the step, by name, e.g. "pmi"; 0 for a step without words."""


def measure(
    groups: Sequence[StepGroup],
    similarity: Similarity | None,
    kind: LikelihoodKind,
    evidence: Mapping[str, Evidence] | None = None,
) -> list[list[RawParts]]:
    """The raw parts of each candidate of each group, in order.

    One `image_text` and one `text_text` call in all, and one of each `evidence`. Only the new
    sentence is compared with the image, never the response so far (arXiv:2405.14622, section 3.1).
    NumericalError names the prompt where a value is not finite.
    """
    steps = [Step(group, candidate) for group in groups for candidate in group.candidates]
    likelihoods = [likelihood(step.candidate, kind) for step in steps]
    _check_finite("likelihood", likelihoods, steps)
    images = _image_similarities(steps, similarity)
    redundancies = _redundancies(steps, similarity)
    gathered = _gathered(steps, evidence or {})
    parts = iter(
        RawParts(
            likelihood=p,
            image_similarity=image,
            redundancy=redundancy,
            is_sentence=step.has_words,
            evidence=found,
        )
        for step, p, image, redundancy, found in zip(
            steps, likelihoods, images, redundancies, gathered, strict=True
        )
    )
    return [[next(parts) for _ in group.candidates] for group in groups]


@dataclass(frozen=True, slots=True)
class Step:
    """A candidate with the group it stands in."""

    group: StepGroup
    candidate: StepCandidate

    @property
    def text(self) -> str:
        """Without outer white space."""
        return self.candidate.text.strip()

    @property
    def has_words(self) -> bool:
        """See `StepCandidate.has_words`."""
        return self.candidate.has_words

    @property
    def prefix_token_ids(self) -> tuple[int, ...]:
        """The response's token ids before this step."""
        return tuple(token_id for step in self.group.prefix for token_id in step.token_ids)

    def earlier_texts(self) -> list[str]:
        """The sentences of the response so far; none for a step that says nothing."""
        if not self.has_words:
            return []
        return [step.text.strip() for step in self.group.prefix if step.has_words]


Evidence = Callable[[Sequence[Step]], Sequence[float]]
"""Measures steps that have words: one value each, larger where more speaks for the step."""


def _gathered(
    steps: Sequence[Step], evidence: Mapping[str, Evidence]
) -> Sequence[Mapping[str, float]]:
    """The values of every evidence for each step, by name."""
    spoken = [step for step in steps if step.has_words]
    remaining = {}
    for name, find in evidence.items():
        values = find(spoken) if spoken else []
        _check_finite(name, values, spoken)
        remaining[name] = iter(values)
    return [
        {name: next(values) if step.has_words else 0.0 for name, values in remaining.items()}
        for step in steps
    ]


def image_text_similarity(steps: Sequence[Step], similarity: Similarity) -> list[float]:
    """100 x cosine of each step's image and sentence, in one call. An `Evidence`."""
    images = [step.group.prompt.image for step in steps]
    cosines = similarity.image_text(images, [step.text for step in steps])
    return [100.0 * cosine for cosine in cosines]


def _image_similarities(
    steps: Sequence[Step], similarity: Similarity | None
) -> Sequence[float | None]:
    if similarity is None:
        return [None] * len(steps)
    spoken = [step for step in steps if step.has_words]
    values = image_text_similarity(spoken, similarity) if spoken else []
    _check_finite("image_similarity", values, spoken)
    remaining = iter(values)
    return [next(remaining) if step.has_words else 0.0 for step in steps]


def _redundancies(steps: Sequence[Step], similarity: Similarity | None) -> Sequence[float | None]:
    if similarity is None:
        return [None] * len(steps)
    pairs = [(step, earlier) for step in steps for earlier in step.earlier_texts()]
    left = [step.text for step, _ in pairs]
    cosines = similarity.text_text(left, [earlier for _, earlier in pairs]) if pairs else []
    _check_finite("redundancy", cosines, [step for step, _ in pairs])
    remaining = iter(cosines)
    return [max((next(remaining) for _ in step.earlier_texts()), default=0.0) for step in steps]


def _check_finite(name: str, values: Sequence[float], steps: Sequence[Step]) -> None:
    for value, step in zip(values, steps, strict=True):
        if not math.isfinite(value):
            raise NumericalError(
                f"The {name} of the step {step.text[:60]!r} for prompt "
                f"{step.group.prompt.prompt_id!r} is {value}: a reward cannot be made of it. Look "
                "for overflow in the policy or the similarity model (try fp32)."
            )
