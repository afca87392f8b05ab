"""One run as one HTML file: no script, no request, nothing outside the file.

Everything a model or a data set wrote is hostile text here: the templates escape it,
and the page's own policy forbids scripts and loads should that ever fail.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from flows.charts import Chart, Series, histogram, line_chart
from flows.compare import RunMetrics, compare_runs
from flows.metric_names import DISTRIBUTIONS, HEADLINE_GROUP, METRICS, Metric
from flows.report_data import ReportData, ReportDemonstration, ReportExample, ReportIteration
from flows.templating import templates
from flows.thumbnails import thumbnail_uri

_MEBIBYTE = 1024**2

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)


def render_report(data: ReportData) -> str:
    """The page's HTML. A missing or broken example image is said so in its place."""
    html: str = (
        _templates()
        .get_template("report.html.j2")
        .render(
            data=data,
            policy=CONTENT_SECURITY_POLICY,
            verdicts=_verdicts(data),
            metric_groups=_metric_groups(data),
            metric_charts=_metric_charts(data),
            distributions=[(it, _distribution_charts(it)) for it in data.iterations if it.chosen],
            training_charts=_training_charts(data),
            skips=_skips(data),
            stages=_stages(data),
            examples=_examples(data),
            demonstrations=_demonstrations(data),
            config=_config_text(data.config),
        )
    )
    return html


def iteration_plots(data: ReportData) -> dict[str, str]:
    """Metric -> an SVG picture of it over the iterations, for the plotted metrics of the head."""
    template = _templates().get_template("plot.svg.j2")
    metrics = [metric for metric in METRICS[HEADLINE_GROUP] if metric.plotted]
    charts = {metric.name: _metric_chart(metric, data) for metric in metrics}
    return {name: template.render(chart=chart) for name, chart in charts.items() if chart}


@functools.cache
def _templates() -> Any:
    environment = templates().overlay()
    environment.filters = environment.filters | {"figure": format_figure, "change": format_change}
    return environment


def format_figure(value: float | None, name: str = "") -> str:
    """Counts whole, other figures with three decimals; a dash for none or not finite."""
    if value is None or not math.isfinite(value):
        return "–"
    if name.startswith("num_") or "_num_" in name:
        return f"{value:,.0f}"
    return f"{value:.2e}" if 0 < abs(value) < 0.0005 else f"{value:.3f}"


def format_change(values: Sequence[float | None]) -> str:
    """From the first to the last figure, signed; a dash where either is missing."""
    first, last = values[0], values[-1]
    if len(values) < 2 or first is None or last is None:
        return "–"
    return f"{last - first:+.3f}"


def _verdicts(data: ReportData) -> list[str]:
    """What changed from the base to the last evaluated iteration."""
    evaluated = [it for it in data.iterations if it.metrics]
    if len(evaluated) < 2 or evaluated[0].iteration != 0:
        return []
    base, *trained = [it.metrics for it in evaluated]
    run = RunMetrics(label=data.run_id, seed=data.seed, base=base, iterations=trained)
    return [verdict.text for verdict in compare_runs([run]).verdicts]


def _metric_groups(data: ReportData) -> list[tuple[str, list[dict[str, Any]]]]:
    """Group title -> table rows: known metrics in their order, then whatever else there is."""
    measured = dict.fromkeys(name for it in data.iterations for name in it.metrics)
    known = {metric.name: metric for group in METRICS.values() for metric in group}
    others = [Metric(name) for name in measured if name not in known and not name.endswith("_se")]
    groups = {**METRICS, "Other figures": others}
    rows = {
        title: [_metric_row(metric, data) for metric in group if metric.name in measured]
        for title, group in groups.items()
    }
    return [(title, group) for title, group in rows.items() if group]


def _metric_row(metric: Metric, data: ReportData) -> dict[str, Any]:
    name = metric.name
    return {
        "metric": metric,
        "figures": [it.metrics.get(name) for it in data.iterations],
        "errors": [it.metrics.get(f"{name}_se") for it in data.iterations],
    }


def _metric_charts(data: ReportData) -> list[tuple[str, list[Chart]]]:
    """Group title -> one plot a known metric, over iterations."""
    charts = {
        title: [_metric_chart(metric, data) for metric in group if metric.plotted]
        for title, group in METRICS.items()
    }
    drawn = {title: [chart for chart in group if chart] for title, group in charts.items()}
    return [(title, group) for title, group in drawn.items() if group]


def _metric_chart(metric: Metric, data: ReportData) -> Chart | None:
    measured = [it for it in data.iterations if metric.name in it.metrics]
    series = Series(
        label="",
        points=[(it.iteration, it.metrics[metric.name]) for it in measured],
        errors=[it.metrics.get(f"{metric.name}_se", 0.0) for it in measured],
    )
    return line_chart(
        metric.title,
        [series],
        x_label="iteration (0 is the base)",
        note=metric.better,
        from_zero=True,
    )


def _distribution_charts(iteration: ReportIteration) -> list[Chart]:
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


def _training_charts(data: ReportData) -> list[Chart]:
    """One plot a logged figure, one line an iteration."""
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
            )
            for it in data.iterations
        ]
        charts.append(
            line_chart(name, series, x_label="optimiser step") if name != "step" else None
        )
    return [chart for chart in charts if chart is not None]


def _skips(data: ReportData) -> list[tuple[ReportIteration, str, str, int]]:
    """(iteration, stage, reason, count), shards added up."""
    totals: dict[tuple[int, str, str], int] = {}
    for place, iteration in enumerate(data.iterations):
        for stage in iteration.stages:
            for reason, count in stage.skipped.items():
                key = (place, stage.name, reason)
                totals[key] = totals.get(key, 0) + count
    return [
        (data.iterations[place], stage, reason, count)
        for (place, stage, reason), count in totals.items()
    ]


def _stages(data: ReportData) -> list[dict[str, Any]]:
    """One row a stage of an iteration: shards' times added, the largest memory."""
    rows = []
    for iteration in data.iterations:
        for name in dict.fromkeys(stage.name for stage in iteration.stages):
            shards = [stage for stage in iteration.stages if stage.name == name]
            peaks = [s.peak_memory_bytes for s in shards if s.peak_memory_bytes is not None]
            rows.append(
                {
                    "iteration": iteration,
                    "name": name,
                    "status": ", ".join(dict.fromkeys(shard.status for shard in shards)),
                    "num_shards": len(shards),
                    "seconds": sum(shard.seconds for shard in shards),
                    "peak_mib": max(peaks) / _MEBIBYTE if peaks else None,
                    "messages": [shard.message for shard in shards if shard.message],
                    "metrics": shards[0].metrics if len(shards) == 1 else {},
                }
            )
    return rows


def _examples(data: ReportData) -> list[tuple[ReportIteration, list[dict[str, Any]]]]:
    return [
        (iteration, [_example(example) for example in iteration.examples])
        for iteration in data.iterations
        if iteration.examples
    ]


def _example(example: ReportExample) -> dict[str, Any]:
    uri, problem = thumbnail_uri(example.image_path)
    parts = dict.fromkeys([*example.chosen_parts, *example.rejected_parts])
    return {"pair": example, "image": uri, "problem": problem, "parts": list(parts)}


def _demonstrations(data: ReportData) -> list[tuple[ReportIteration, list[dict[str, Any]]]]:
    return [
        (iteration, [_demonstration(each) for each in iteration.demonstrations])
        for iteration in data.iterations
        if iteration.demonstrations
    ]


def _demonstration(demonstration: ReportDemonstration) -> dict[str, Any]:
    uri, problem = thumbnail_uri(demonstration.image_path)
    return {"shown": demonstration, "image": uri, "problem": problem}


def _config_text(config: Mapping[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    return text
