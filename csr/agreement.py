"""How far people agree in their verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from csr.annotations import Annotation, AnnotationVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Over the responses that two or more people accept or refuse; who skips has no say.

    Example: `Agreement(num_responses=40, observed=0.85, kappa=0.7)`
    """

    num_responses: int
    observed: float | None
    """Share of the pairs of people, in [0, 1], who say the same of a response, as a mean over
    responses; None without any."""
    kappa: float | None
    """Fleiss' kappa: 1 is full agreement, 0 what chance gives. None where it is not defined: no
    response, or all verdicts the same."""


def agreement(annotations: Sequence[Annotation]) -> Agreement:
    """Fleiss (1971), his equations 2 to 8, where people may differ in number by response.

    Each person has one verdict on a response.
    """
    votes: dict[str, Counter[AnnotationVerdict]] = {}
    for each in annotations:
        if each.verdict is not AnnotationVerdict.SKIP:
            votes.setdefault(each.response_id, Counter())[each.verdict] += 1
    shared = [counts for counts in votes.values() if counts.total() > 1]
    if not shared:
        return Agreement(num_responses=0, observed=None, kappa=None)
    observed = sum(map(_agreeing_pairs, shared)) / len(shared)
    totals = sum(shared, Counter[AnnotationVerdict]())
    by_chance = sum((count / totals.total()) ** 2 for count in totals.values())
    kappa = None if len(totals) == 1 else (observed - by_chance) / (1 - by_chance)
    return Agreement(num_responses=len(shared), observed=observed, kappa=kappa)


def _agreeing_pairs(counts: Counter[AnnotationVerdict]) -> float:
    """Share of the pairs of people who say the same."""
    num_people = counts.total()
    return sum(n * (n - 1) for n in counts.values()) / (num_people * (num_people - 1))
