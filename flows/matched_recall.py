"""CHAIR where recall is held: what a policy omits must not count as what it sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

RECALL_FALLS = (0.01, 0.02, 0.03)
"""How far recall may fall below the base's; differences of fractions."""

Point = tuple[float, float]
"""(recall, chair_s)"""


def chair_s_at(
    base: Mapping[str, float], iterations: Sequence[Mapping[str, float]], max_recall_fall: float
) -> float | None:
    """The lowest chair_s of a run whose recall fell by `max_recall_fall` at most.

    Between two iterations both figures are taken to change evenly, so a run that passes the limit
    counts up to where it does. None where a figure is missing.
    """
    points = [(each.get("recall"), each.get("chair_s")) for each in (base, *iterations)]
    whole = [(r, c) for r, c in points if r is not None and c is not None]
    if len(whole) < len(points):
        return None
    limit = whole[0][0] - max_recall_fall
    reached = [chair_s for recall, chair_s in whole if recall >= limit]
    crossed = [
        _crossing(one, two, limit) for one, two in pairwise(whole) if _crosses(one, two, limit)
    ]
    return min(reached + crossed)


def _crosses(one: Point, two: Point, limit: float) -> bool:
    return (one[0] - limit) * (two[0] - limit) < 0


def _crossing(one: Point, two: Point, limit: float) -> float:
    share = (limit - one[0]) / (two[0] - one[0])
    return one[1] + share * (two[1] - one[1])
