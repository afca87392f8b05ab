"""`csr compare --plot`: hallucination against recall, where lower and further right is better."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from unicodedata import east_asian_width

from csr.errors import DataError
from flows.charts import BOTTOM, TOP, Chart, Series, line_chart
from flows.compare import BASE_LABEL, Comparison, Row
from flows.metric_names import HIGHER
from flows.templating import templates

NAME_DISTANCE = 9.0
"""Between two names, in the picture's user units."""
LETTER_SIZE = 7.0
"""Of names, in the picture's user units."""


def pareto_svg(comparison: Comparison) -> str:
    """The picture, as SVG. DataError where no configuration has both figures."""
    chart = pareto_chart(comparison)
    if chart is None:
        raise DataError(
            "There is nothing to plot: none of the runs has both `chair_s` and `recall` after an "
            "iteration. They come from the benchmark `captions` with a vocabulary."
        )
    ends = [line.points[-1][1] for line in chart.series]
    lowest = max(BOTTOM, TOP + NAME_DISTANCE * (len(ends) - 1))
    picture: str = (
        templates()
        .get_template("pareto.svg.j2")
        .render(
            chart=chart,
            name_places=spread_apart(ends, NAME_DISTANCE, lowest),
            names_width=max(name_width(line.label) for line in chart.series),
            names_height=lowest - BOTTOM,
        )
    )
    return picture


def name_width(name: str) -> float:
    """Room for the name in the picture's user units, at its letters' size, rather too much."""
    wide = sum(east_asian_width(letter) in "WF" for letter in name)
    return LETTER_SIZE * (0.64 * (len(name) - wide) + wide)


def spread_apart(places: Sequence[float], distance: float, largest: float) -> list[float]:
    """The places, moved so that no two are nearer than `distance` and none is above `largest`.

    Their order stays, and the first of equal ones stays first.
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for before, index in pairwise(order):
        moved[index] = max(moved[index], moved[before] + distance)
    limit = largest
    for index in reversed(order):
        moved[index] = min(moved[index], limit)
        limit = moved[index] - distance
    return moved


def pareto_chart(comparison: Comparison) -> Chart | None:
    """One path a configuration, from its base over its iterations; means over runs."""
    bases = {row.label: row for row in comparison.rows if row.iteration == 0}
    paths: dict[str, list[Row]] = {}
    for row in comparison.rows:
        if row.iteration > 0:
            start = bases.get(row.label) or bases.get(BASE_LABEL)
            paths.setdefault(row.label, [start] if start else []).append(row)
    series = [Series(label=label, points=_points(rows)) for label, rows in paths.items()]
    return line_chart(
        "CHAIR_s against recall",
        [each for each in series if each.points],
        x_label=f"recall ({HIGHER})",
        note="each path starts at the base; every dot is an iteration",
        from_zero=True,
        whole_x=False,
    )


def _points(rows: Sequence[Row]) -> list[tuple[float, float]]:
    return [
        (row.metrics["recall"].mean, row.metrics["chair_s"].mean)
        for row in rows
        if {"recall", "chair_s"} <= row.metrics.keys()
    ]
