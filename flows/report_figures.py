"""The figures of a run's report: held-out metrics, distributions over pairs, training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flows.charts import Chart, Series, histogram, line_chart
from flows.metric_names import (
    CI_HIGH,
    CI_LOW,
    DISTRIBUTIONS,
    HEADLINE_GROUP,
    METRICS,
    Metric,
    is_companion,
    is_count,
)
from flows.report_data import ReportData, ReportIteration

TOGETHER = ("chair_s", "recall", "mean_response_sentences")
"""Shown beside each other wherever one of them is: who says less hallucinates less."""

Measured = tuple[int, Mapping[str, float]]
"""An iteration's number, and its metrics."""

_Z_95 = 1.959964
"""Standard errors each way that hold 95 % of a normal distribution."""


def interval_95(metrics: Mapping[str, float], name: str) -> tuple[float, float] | None:
    """The ends of the figure's 95 % interval; None where nothing is known of its error.

    Those that the evaluation stored as `<name>_ci_low` and `<name>_ci_high`, else what a normal
    distribution makes of `<name>_se`.
    """
    low, high = metrics.get(f"{name}{CI_LOW}"), metrics.get(f"{name}{CI_HIGH}")
    if low is not None and high is not None:
        return low, high
    value, error = metrics.get(name), metrics.get(f"{name}_se")
    if value is None or error is None:
        return None
    return value - _Z_95 * error, value + _Z_95 * error


def format_interval(ends: tuple[float, float]) -> str:
    """E.g. "[0.248, 0.337]"."""
    return f"[{format_figure(ends[0])}, {format_figure(ends[1])}]"


def format_figure(value: float | None, name: str = "") -> str:
    """Counts whole, other figures with three decimals; a dash for none or not finite."""
    if value is None or not math.isfinite(value):
        return "–"
    if is_count(name):
        return f"{value:,.0f}"
    return f"{value:.2e}" if 0 < abs(value) < 0.0005 else f"{value:.3f}"


def format_change(values: Sequence[float | None], name: str = "") -> str:
    """From the first to the last figure, signed; a dash where either is missing."""
    if len(values) < 2 or values[0] is None or values[-1] is None:
        return "–"
    change = values[-1] - values[0]
    return f"{change:+,.0f}" if is_count(name) else f"{change:+.3f}"


def format_reward(value: float) -> str:
    """Signed, two decimals, with a true minus; a dash where it is no number."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
    return text if float(f"{value:.2f}") else "0.00"


def format_measured(value: float) -> str:
    """Two decimals with a true minus, as a raw part of a reward is shown."""
    text = f"{value:.2f}" if math.isfinite(value) else "–"
    return text.replace("-", "\N{MINUS SIGN}")


def metric_groups(data: ReportData) -> list[tuple[str, list[dict[str, Any]]]]:
    """Group title -> table rows: known metrics in their order, then whatever else there is."""
    measured = dict.fromkeys(name for it in data.iterations for name in it.metrics)
    known = {metric.name: metric for group in METRICS.values() for metric in group}
    others = [Metric(name) for name in measured if name not in known and not is_companion(name)]
    groups = {**METRICS, "Other figures": others}
    rows = {
        title: [_metric_row(metric, data) for metric in group if metric.name in measured]
        for title, group in groups.items()
    }
    return [(title, group) for title, group in rows.items() if group]


def _metric_row(metric: Metric, data: ReportData) -> dict[str, Any]:
    name = metric.name
    evaluated = [it.metrics.get(name) for it in data.iterations if it.metrics]
    return {
        "metric": metric,
        "change": format_change(evaluated, name),
        "figures": [it.metrics.get(name) for it in data.iterations],
        "intervals": [interval_95(it.metrics, name) for it in data.iterations],
    }


def metric_charts(data: ReportData) -> list[tuple[str, list[Chart]]]:
    """Group title -> one plot a known metric, over iterations."""
    measured = [(it.iteration, it.metrics) for it in data.iterations]
    charts = {
        title: [metric_chart(metric, measured) for metric in group if metric.plotted]
        for title, group in METRICS.items()
    }
    drawn = {title: [chart for chart in group if chart] for title, group in charts.items()}
    return [(title, group) for title, group in drawn.items() if group]


def metric_chart(metric: Metric, measured: Sequence[Measured]) -> Chart | None:
    """Its trajectory over the iterations with 95 % intervals; None where nothing is measured."""
    known = [(iteration, metrics) for iteration, metrics in measured if metric.name in metrics]
    series = Series(
        label="",
        points=[(iteration, metrics[metric.name]) for iteration, metrics in known],
        intervals=[interval_95(metrics, metric.name) for _, metrics in known],
    )
    return line_chart(
        metric.title,
        [series],
        x_label="iteration (0 is the base)",
        note=metric.better,
        from_zero=True,
    )


def distribution_charts(iteration: ReportIteration) -> list[Chart]:
    """Histograms over the pairs, chosen beside rejected."""
    charts = [
        histogram(
            title,
            [
                ("chosen", iteration.chosen.get(part, ())),
                ("rejected", iteration.rejected.get(part, ())),
            ],
        )
        for part, title in DISTRIBUTIONS.items()
    ]
    return [chart for chart in charts if chart is not None]


def training_charts(data: ReportData) -> list[Chart]:
    """One plot a logged figure, one line an iteration, coloured from the first to the last."""
    trained = [it for it in data.iterations if it.history]
    last = max(len(trained) - 1, 1)
    names = dict.fromkeys(name for it in data.iterations for row in it.history for name in row)
    charts = []
    for name in names:
        series = [
            Series(
                label=f"iteration {it.iteration}",
                points=[
                    (row.get("step", i), row[name])
                    for i, row in enumerate(it.history, 1)
                    if name in row
                ],
                place=place / last,
            )
            for place, it in enumerate(trained)
        ]
        charts.append(
            line_chart(name, series, x_label="optimiser step") if name != "step" else None
        )
    return [chart for chart in charts if chart is not None]


def tiles(data: ReportData) -> list[dict[str, Any]]:
    """Hallucination, recall and length from the first evaluation to the last, if all are there."""
    evaluated = [it for it in data.iterations if it.metrics]
    known = {metric.name: metric for metric in METRICS[HEADLINE_GROUP]}
    if not evaluated or not all(name in evaluated[-1].metrics for name in TOGETHER):
        return []
    first, last = evaluated[0], evaluated[-1]
    measured = [(it.iteration, it.metrics) for it in evaluated]
    return [
        {
            "metric": known[name],
            "first": first.metrics.get(name) if first is not last else None,
            "last": last.metrics[name],
            "interval": interval_95(last.metrics, name),
            "chart": metric_chart(known[name], measured),
        }
        for name in TOGETHER
    ]
