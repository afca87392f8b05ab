"""Geometry of small plots; `templates/charts.html.j2` draws them as SVG.

Coordinates are SVG user units in a box of `WIDTH` by `HEIGHT`, y pointing down. Text
is drawn by the template, which escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flows.ticks import around, nice_ticks, tick_text, tick_texts

WIDTH = 320
HEIGHT = 190
LEFT, RIGHT, TOP, BOTTOM = 56, 308, 12, 160
"""Edges of the area that data is drawn in."""
NUM_BINS = 24
MAX_POINTS = 300
"""More points of one line than this cannot be told apart at the plot's size."""
MAX_TABLE_ROWS = 24
TABLE_DIGITS = 6
"""Significant digits of what is read as a text: no eye tells its values apart by their places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line: (x, y) points, not finite ones left out by `line_chart`."""

    label: str
    points: Sequence[tuple[float, float]]
    intervals: Sequence[tuple[float, float] | None] = ()
    """Ends of each y's interval, drawn as a bar and a band; empty for none."""
    place: float | None = None
    """0 to 1 along a ramp of colours, where the lines of a plot have an order; else each has a
    colour of its own."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: where, and what is written there."""

    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnSeries:
    """One series in user units. `path` is SVG path data."""

    label: str
    path: str
    points: tuple[tuple[float, float], ...] = ()
    error_path: str = ""
    band_path: str = ""
    """The outline of the area between the ends of the intervals, where every point has one."""
    mean_at: float | None = None
    """x of a mean's mark, for histograms."""
    place: float | None = None
    """As `Series.place`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A plot ready to be drawn."""

    kind: str
    """ "line" or "histogram"."""
    title: str
    note: str
    """E.g. which way is better; "" for none."""
    x_label: str
    series: tuple[DrawnSeries, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    summary: str
    """What a reader who cannot see the plot should know."""
    columns: tuple[str, ...] = ()
    """Head of `rows`: x, then the series."""
    rows: tuple[tuple[str, ...], ...] = ()
    """The plot as a table, for who cannot see it; every so many points where they are many."""


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    note: str = "",
    from_zero: bool = False,
    whole_x: bool = True,
) -> Chart | None:
    """Lines over a common x; None where no point is finite.

    `from_zero` starts the y axis at 0, so that a small change does not look like a large
    one. `whole_x`: x is a count (iterations, steps), so its ticks are whole.
    """
    cleaned = [_finite(each) for each in series]
    cleaned = [each for each in cleaned if each.points]
    if not cleaned:
        return None
    xs = [x for each in cleaned for x, _ in each.points]
    reached = [y for each in cleaned for _, y in each.points]
    reached += [end for each in cleaned for ends in each.intervals if ends for end in ends]
    y_low, y_high = min(reached), max(reached)
    if from_zero:
        y_low = min(0.0, *(y for each in cleaned for _, y in each.points))
        y_high = 1.0 if y_low == y_high == 0 else y_high  # nothing but zeros lies on the axis
    y_ticks = nice_ticks(y_low, y_high, cover=True)
    x_ticks = nice_ticks(min(xs), max(xs), whole=whole_x)
    x_scale = _Scale(min(xs), max(xs), LEFT + 8, RIGHT - 8)
    y_scale = _Scale(y_ticks[0], y_ticks[-1], BOTTOM, TOP)
    return Chart(
        kind="line",
        title=title,
        note=note,
        x_label=x_label,
        series=tuple(_draw_line(each, x_scale, y_scale) for each in cleaned),
        x_ticks=_ticks(x_ticks, x_scale),
        y_ticks=_ticks(y_ticks, y_scale),
        summary=f"{title}. " + " ".join(_describe(each) for each in cleaned),
        columns=(x_label, *(each.label or "value" for each in cleaned)),
        rows=_line_rows(cleaned),
    )


def histogram(title: str, groups: Sequence[tuple[str, Sequence[float]]]) -> Chart | None:
    """Distributions over common bins, as counts; None where no value is finite."""
    finite = [(label, [v for v in values if math.isfinite(v)]) for label, values in groups]
    finite = [(label, values) for label, values in finite if values]
    if not finite:
        return None
    low, high, num_bins = bin_edges([value for _, values in finite for value in values])
    counts = [bin_counts(values, low, high, num_bins) for _, values in finite]
    y_ticks = nice_ticks(0, max(map(max, counts)), whole=True, cover=True)
    x_scale = _Scale(low, high, LEFT, RIGHT)
    y_scale = _Scale(0, y_ticks[-1], BOTTOM, TOP)
    means = [math.fsum(values) / len(values) for _, values in finite]
    described = [
        f"{label}: mean {tick_text(mean)}, {len(values)} values."
        for (label, values), mean in zip(finite, means, strict=True)
    ]
    return Chart(
        kind="histogram",
        title=title,
        note="",
        x_label="",
        series=tuple(
            DrawnSeries(label=label, path=_steps(bins, y_scale), mean_at=x_scale(mean))
            for (label, _), bins, mean in zip(finite, counts, means, strict=True)
        ),
        x_ticks=_ticks(nice_ticks(low, high), x_scale),
        y_ticks=_ticks(y_ticks, y_scale),
        summary=" ".join([f"{title}.", *described]),
        columns=("from", "to", *(label for label, _ in finite)),
        rows=_bin_rows(counts, low, high),
    )


def bin_edges(values: Sequence[float]) -> tuple[float, float, int]:
    """Where bins begin and end, and how many there are.

    Whole numbers get bins around whole numbers, so that no bar stands between two.
    """
    low, high = min(values), max(values)
    if all(float(value).is_integer() for value in values):
        per_bin = math.ceil((high - low + 1) / NUM_BINS)
        num_bins = math.ceil((high - low + 1) / per_bin)
        return low - 0.5, low - 0.5 + num_bins * per_bin, num_bins
    return (low, high, NUM_BINS) if low < high else (low - around(low), low + around(low), NUM_BINS)


def bin_counts(values: Sequence[float], low: float, high: float, num_bins: int) -> list[int]:
    """How many values lie in each of equal bins; `high` belongs to the last."""
    counts = [0] * num_bins
    for value in values:
        place = int((value - low) / (high - low) * num_bins)
        counts[min(place, num_bins - 1)] += 1
    return counts


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps [low, high] to user units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        if self.high == self.low:
            return round((self.start + self.end) / 2, 1)
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def _ticks(values: Sequence[float], scale: _Scale) -> tuple[Tick, ...]:
    texts = tick_texts(values)
    return tuple(Tick(scale(value), text) for value, text in zip(values, texts, strict=True))


def _finite(series: Series) -> Series:
    """Finite points only, thinned to `MAX_POINTS`; each with an interval or None."""
    intervals = series.intervals or [None] * len(series.points)
    kept = [
        (point, ends if ends and all(map(math.isfinite, ends)) and ends[0] < ends[1] else None)
        for point, ends in zip(series.points, intervals, strict=True)
        if all(map(math.isfinite, point))
    ]
    every = -(-len(kept) // MAX_POINTS) or 1
    thinned = (
        kept[::every] if not kept or (len(kept) - 1) % every == 0 else [*kept[::every], kept[-1]]
    )
    return Series(
        label=series.label,
        points=[point for point, _ in thinned],
        intervals=[ends for _, ends in thinned],
        place=series.place,
    )


def _draw_line(series: Series, x_scale: _Scale, y_scale: _Scale) -> DrawnSeries:
    points = tuple((x_scale(x), y_scale(y)) for x, y in series.points)
    ends = [
        (x_scale(x), min(y_scale(low_high[0]), BOTTOM), max(y_scale(low_high[1]), TOP))
        for (x, _), low_high in zip(series.points, series.intervals, strict=True)
        if low_high
    ]
    band = [f"{x} {top}" for x, _, top in ends] + [f"{x} {low}" for x, low, _ in reversed(ends)]
    return DrawnSeries(
        label=series.label,
        path="M" + "L".join(f"{x} {y}" for x, y in points),
        place=series.place,
        points=points,
        error_path="".join(f"M{x} {low}V{top}" for x, low, top in ends),
        band_path=f"M{'L'.join(band)}Z" if len(ends) == len(points) > 1 else "",
    )


def _line_rows(series: Sequence[Series]) -> tuple[tuple[str, ...], ...]:
    """One row an x, about `MAX_TABLE_ROWS` at most, the first and the last among them; a dash
    where a line has no point.
    """
    written: list[dict[float, str]] = []
    for each in series:
        texts = {}
        for (x, y), ends in zip(each.points, each.intervals, strict=True):
            texts[x] = _told(y) + (f" [{', '.join(map(_told, ends))}]" if ends else "")
        written.append(texts)
    xs = sorted({x for texts in written for x in texts})
    every = -(-len(xs) // MAX_TABLE_ROWS)
    shown = list(dict.fromkeys([*xs[::every], xs[-1]]))
    return tuple(
        (name, *(texts.get(x, "–") for texts in written))
        for x, name in zip(shown, tick_texts(shown), strict=True)
    )


def _bin_rows(
    counts: Sequence[Sequence[int]], low: float, high: float
) -> tuple[tuple[str, ...], ...]:
    num_bins = len(counts[0])
    edges = tick_texts([low + n * (high - low) / num_bins for n in range(num_bins + 1)])
    return tuple(
        (edges[n], edges[n + 1], *(str(each[n]) for each in counts)) for n in range(num_bins)
    )


def _steps(counts: Sequence[int], y_scale: _Scale) -> str:
    """The outline of a histogram's bars, from the axis back to the axis."""
    width = (RIGHT - LEFT) / len(counts)
    path = f"M{LEFT} {y_scale(0)}"
    for place, count in enumerate(counts):
        path += f"V{y_scale(count)}H{round(LEFT + (place + 1) * width, 1)}"
    return f"{path}V{y_scale(0)}"


def _describe(series: Series) -> str:
    first, last = series.points[0], series.points[-1]
    name = f"{series.label}: " if series.label else ""
    if len(series.points) == 1:
        return f"{name}{_told(first[1])}."
    return f"{name}from {_told(first[1])} to {_told(last[1])}."


def _told(value: float) -> str:
    return tick_text(value, TABLE_DIGITS)
