"""One run as one HTML file: no request, nothing outside the file, one script of our own.

Everything a model or a data set wrote is hostile text here: the templates escape it, and the page's
own policy forbids loads, and every script but the one whose digest it names, should that ever fail.
"""

from __future__ import annotations

import functools
import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows import report_figures as figures
from flows.compare import RunMetrics, compare_runs, standing_caution
from flows.figures import shard_figures
from flows.marking import num_absent, pieces
from flows.metric_names import HEADLINE_GROUP, METRICS
from flows.report_data import ReportData, ReportExample, ReportIteration
from flows.report_pictures import Pictures
from flows.report_searches import Searches
from flows.templating import templates
from flows.tree_view import reward_parts

_MEBIBYTE = 1024**2

SCRIPT = (Path(__file__).parent / "templates" / "report.js").read_text(encoding="utf-8")
"""Filters the pairs. The page holds it as it is, since the policy names its digest."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    f"script-src 'sha256-{b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'"
)


def render_report(data: ReportData) -> str:
    """The page's HTML. A missing or broken example image is said so in its place."""
    from markupsafe import Markup

    html: str = (
        _templates()
        .get_template("report.html.j2")
        .render(
            data=data,
            policy=CONTENT_SECURITY_POLICY,
            script=Markup(SCRIPT),  # our own file, and nothing is filled in
            verdicts=_verdicts(data),
            failures=_failures(data),
            tiles=figures.tiles(data),
            metric_groups=figures.metric_groups(data),
            metric_charts=figures.metric_charts(data),
            distributions={
                it.attempt: figures.distribution_charts(it) for it in data.iterations if it.chosen
            },
            training_charts=figures.training_charts(data),
            skips=_skips(data),
            stages=_stages(data),
            pairs=_pairs(data),
            sources=sorted({each.source for it in data.iterations for each in it.examples}),
            truth_is_known=any(
                pair.chosen_marks is not None for it in data.iterations for pair in it.examples
            ),
            searches=Searches(data),
            pictures=Pictures(data),
            config=_config_text(data.config),
        )
    )
    return html


def iteration_plots(measured: Sequence[figures.Measured]) -> dict[str, str]:
    """Metric -> an SVG picture of it over the iterations, for the plotted metrics of the head."""
    template = _templates().get_template("plot.svg.j2")
    metrics = [metric for metric in METRICS[HEADLINE_GROUP] if metric.plotted]
    charts = {metric.name: figures.metric_chart(metric, measured) for metric in metrics}
    return {name: template.render(chart=chart) for name, chart in charts.items() if chart}


@functools.cache
def _templates() -> Any:
    environment = templates().overlay()
    environment.filters = environment.filters | {
        "figure": figures.format_figure,
        "interval": figures.format_interval,
        "measured": figures.format_measured,
        "reward": figures.format_reward,
        "parts": reward_parts,
        "pieces": pieces,
    }
    return environment


def _verdicts(data: ReportData) -> list[str]:
    """What changed from the base to the last evaluated iteration, and whether that one counts."""
    evaluated = {it.iteration: it for it in data.iterations if it.metrics}
    told = []
    if 0 in evaluated:
        base, *trained = evaluated.values()
        run = RunMetrics(
            label=data.run_id,
            seed=data.seed,
            base=base.metrics,
            iterations={it.iteration: it.metrics for it in trained},
        )
        told = [verdict.text for verdict in compare_runs([run]).verdicts]
    cautions = [
        standing_caution(it.attempt, held=bool(it.held), stale=it.status == "stale")
        for it in list(evaluated.values())[-1:]
    ]
    return [*told, *(f"Caution: {caution}." for caution in cautions if caution)]


def _failures(data: ReportData) -> list[tuple[str, str, str]]:
    """(attempt, stage, message) of what a failed run failed in."""
    if data.status != "failed":
        return []
    failed = [
        (iteration.attempt, stage.name, stage.message)
        for iteration in data.iterations
        for stage in iteration.stages
        if stage.status == "failed"
    ]
    return list(dict.fromkeys(failed))


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
    """One row a stage of an iteration: shards' times and counts added, the largest memory."""
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
                    "metrics": shard_figures([shard.metrics for shard in shards]),
                }
            )
    return rows


def _pairs(data: ReportData) -> list[tuple[ReportIteration, list[dict[str, Any]]]]:
    """The pairs of each iteration that has some, and what the page's filter goes by."""
    return [
        (iteration, [_pair(pair) for pair in iteration.examples])
        for iteration in data.iterations
        if iteration.examples
    ]


def _pair(pair: ReportExample) -> dict[str, Any]:
    known = pair.chosen_marks is not None and pair.rejected_marks is not None
    sides = {"chosen": pair.chosen_marks, "rejected": pair.rejected_marks}
    absent = [side for side, marks in sides.items() if num_absent(marks)]
    return {
        "pair": pair,
        "absent": " ".join(absent or ["none"]) if known else "unknown",
        "parts": list(dict.fromkeys([*pair.chosen_parts, *pair.rejected_parts])),
    }


def _config_text(config: Mapping[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    return text
