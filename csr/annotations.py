"""What critics say of responses, and what it amounts to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from csr.types import Demonstration, SkipReason


class AnnotationVerdict(StrEnum):
    """What a critic says of a response."""

    ACCEPT = "accept"
    REFUSE = "refuse"
    SKIP = "skip"  # this critic will not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One critic's verdict on one response. People are critics; so are rules.

    Example: `Annotation(response_id="42/3", prompt_id="42", verdict=AnnotationVerdict.ACCEPT,
    annotator="ada", created_at="2026-11-28T12:00:00+00:00")`
    """

    response_id: str
    """The leaf's node id."""
    prompt_id: str
    verdict: AnnotationVerdict
    annotator: str
    """A person's name, or the critic's."""
    created_at: str | None = None
    """ISO 8601, UTC; None where no person gave it."""
    score: float | None = None
    """What the critic measured, where it measures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What people must have said before a run goes on.

    Example: `Quota(num_annotators=2, num_responses=100)`
    """

    num_annotators: int = 1
    """People who must have judged a response; who says "skip" has judged it."""
    num_responses: int | None = None
    """Responses that need that many; None is all."""

    def num_wanted(self, num_known: int) -> int:
        """How many of the known responses need verdicts."""
        return num_known if self.num_responses is None else min(self.num_responses, num_known)

    def judged(self, annotations: Sequence[Annotation]) -> set[str]:
        """The responses that enough people have judged."""
        counts = Counter(
            response_id for response_id, _ in {(a.response_id, a.annotator) for a in annotations}
        )
        return {name for name, count in counts.items() if count >= self.num_annotators}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What pairing may know beside the trees."""

    annotations: tuple[Annotation, ...] = ()
    """The critic's verdicts on the trees' responses."""
    earlier: tuple[Demonstration, ...] = ()
    """What the iteration before was trained on, in stored order."""


def agreed_verdicts(annotations: Sequence[Annotation]) -> dict[str, AnnotationVerdict | SkipReason]:
    """Response id -> what most of its annotators say of it.

    As many for as against is DISPUTED; a response that all skipped has NO_VERDICT.
    """
    votes: dict[str, list[AnnotationVerdict]] = {}
    for annotation in annotations:
        votes.setdefault(annotation.response_id, []).append(annotation.verdict)
    return {response_id: _majority(given) for response_id, given in votes.items()}


def _majority(votes: Sequence[AnnotationVerdict]) -> AnnotationVerdict | SkipReason:
    num_for = votes.count(AnnotationVerdict.ACCEPT)
    num_against = votes.count(AnnotationVerdict.REFUSE)
    if num_for == num_against:
        return SkipReason.DISPUTED if num_for else SkipReason.NO_VERDICT
    return AnnotationVerdict.ACCEPT if num_for > num_against else AnnotationVerdict.REFUSE
