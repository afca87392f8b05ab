"""What each response adds to a figure, so that a figure's uncertainty can be told from them.

Every figure of a benchmark that a confidence interval or a paired test is given for is a ratio of
sums over responses: CHAIR_i is hallucinated mentions over mentions, F1 is 2 TP over 2 TP + FP + FN.
Some are means of such ratios over strata, as POPE's accuracy is over its three splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One response's part in one figure.

    Example: a caption with 2 hallucinated of 5 mentions gives `Outcome(prompt_id="42",
    image="a.jpg", metric="chair_i", numerator=2.0, denominator=5.0)`
    """

    prompt_id: str
    image: str
    """Which image was asked about: what is asked of one image is not independent."""
    metric: str
    stratum: str = ""
    """The figure is the mean over strata of the ratio in each."""
    numerator: float
    denominator: float


def outcomes_of(
    prompt_id: str, image: str, ratios: Iterable[tuple[str, float, float]], stratum: str = ""
) -> list[Outcome]:
    """One response's outcomes, from (metric, numerator, denominator)."""
    return [
        Outcome(
            prompt_id=prompt_id,
            image=image,
            metric=metric,
            stratum=stratum,
            numerator=float(numerator),
            denominator=float(denominator),
        )
        for metric, numerator, denominator in ratios
    ]


def by_metric(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """The outcomes of each figure, in the order in which figures first occur."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.metric, []).append(outcome)
    return groups
