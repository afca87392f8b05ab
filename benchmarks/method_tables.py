"""Tables and plots of docs/results.md's second section, from the runs of benchmarks/methods.py.

    python -m benchmarks.method_tables --home runs/methods    gathers the runs' figures, then draws
    python -m benchmarks.method_tables                        draws from the gathered figures alone

The figures of every run lie in docs/plots/methods.json, so that anybody can compute others; what
is gathered replaces there what it repeats.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.methods import CONFIGURATIONS, CONTROL, NUM_ITERATIONS
from flows.compare import COLUMNS, Comparison, Row, RunMetrics, Spread, compare_runs
from flows.comparison import run_metrics
from flows.comparison_views import cell, markdown_table
from flows.matched_recall import RECALL_FALLS
from flows.pareto import pareto_svg
from storage.run_store import RunStore

PLOTS = Path(__file__).parents[1] / "docs" / "plots"
DATA = PLOTS / "methods.json"
QUALITY = {
    "chair_s": "chair_s",
    "chair_i": "chair_i",
    "recall": "recall",
    "mean_response_sentences": "sentences",
    "colour_accuracy": "colour",
    "position_accuracy": "position",
    "sentence_accuracy": "sentence right",
    "pope_accuracy": "POPE",
    "rationale_rouge_l": "ROUGE-L",
}
COSTS = {
    "spent_seconds": "seconds",
    "spent_generated_tokens": "sampled tokens",
    "spent_prompt_tokens": "prompt tokens",
    "spent_optimizer_steps": "optimiser steps",
    "spent_human_verdicts": "human verdicts",
}
_OPTIONS = [name for name in CONFIGURATIONS if name.startswith("csr-")]
_LAMBDAS = [name for name in CONFIGURATIONS if name.startswith("lambda-")]
GROUPS = {
    "methods": [name for name in CONFIGURATIONS if name not in (*_OPTIONS, *_LAMBDAS)],
    "csr_options": ["csr", *_OPTIONS],
    "lambda": ["csr", *_LAMBDAS],
}
"""Plot -> the configurations in it."""


def gather(home: Path) -> list[RunMetrics]:
    """The figures of every run under `home` that went through all its iterations."""
    runs = [run_metrics(home, record.run_id) for record in RunStore(home).runs()]
    return [_compared_figures(run) for run in runs if len(run.iterations) == NUM_ITERATIONS]


def _compared_figures(run: RunMetrics) -> RunMetrics:
    """The run without what `csr compare` does not show."""
    base, *iterations = (
        {name: figures[name] for name in COLUMNS if name in figures}
        for figures in (run.base, *run.iterations.values())
    )
    return replace(run, base=base, iterations=dict(zip(run.iterations, iterations, strict=True)))


def merged(old: Sequence[RunMetrics], new: Sequence[RunMetrics]) -> list[RunMetrics]:
    """One run for each configuration and seed, the new one where there are two; in order."""
    runs = {(run.label, run.seed): run for run in (*old, *new)}
    places = {label: place for place, label in enumerate(CONFIGURATIONS)}
    return sorted(runs.values(), key=lambda run: (places[run.label], run.seed))


def save(runs: Sequence[RunMetrics], path: Path) -> None:
    """One run a line, its iterations in a list, figures with five significant digits."""
    values = [{**asdict(run), "iterations": list(run.iterations.values())} for run in runs]
    lines = [json.dumps(_rounded(value)) for value in values]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def load(path: Path) -> list[RunMetrics]:
    """What `save` wrote."""
    return [
        RunMetrics(**{**value, "iterations": dict(enumerate(value["iterations"], 1))})
        for value in json.loads(path.read_text(encoding="utf-8"))
    ]


def tables(comparison: Comparison) -> str:
    """All tables, in Markdown."""
    last = [row for row in comparison.rows if row.iteration in (0, NUM_ITERATIONS)]
    first = [row for row in comparison.rows if row.iteration == 1]
    some = {name: QUALITY[name] for name in ("chair_s", "recall", "mean_response_sentences")}
    trained = [row for row in last if row.iteration]
    matched = [
        [row.label, *(_cell(row.at[fall]) for fall in RECALL_FALLS)] for row in comparison.matched
    ]
    falls = [f"-{fall * 100:g} points" for fall in RECALL_FALLS]
    return "\n\n".join(
        (
            _table(["", "runs", *QUALITY.values()], [_row(row, QUALITY) for row in last]),
            _table(["after one iteration", "runs", *some.values()], [_row(r, some) for r in first]),
            _table(["chair_s at a recall of the base's", *falls], matched),
            _table(["spent", "runs", *COSTS.values()], [_row(row, COSTS) for row in trained]),
        )
    )


def _row(row: Row, columns: dict[str, str]) -> list[str]:
    return [row.label, str(len(row.seeds)), *(_cell(row.metrics.get(name)) for name in columns)]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(markdown_table(header, rows))


def _cell(spread: Spread | None) -> str:
    return cell(spread, _figure, dash="–")


def _figure(value: float) -> str:
    """Fractions as .123, sentences as 2.65, whole numbers with their thousands."""
    if value >= 10 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}".removeprefix("0")


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main() -> int:
    """Gather if asked to, print the tables, write the plots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    known = load(options.data) if options.data.exists() else []
    found = gather(options.home) if options.home is not None else []
    if options.home is not None and not found:
        parser.error(f"{options.home} holds no run that went through {NUM_ITERATIONS} iterations.")
    if not known and not found:
        parser.error(f"there is no {options.data} to draw from. Name the runs' folder by --home.")
    if strangers := {run.label for run in found} - set(CONFIGURATIONS):
        parser.error(f"{options.home} holds runs of other recipes: {', '.join(sorted(strangers))}.")
    if found:
        save(merged(known, found), options.data)
    runs = load(options.data)
    print(tables(compare_runs(runs, control=CONTROL)))
    for name, labels in GROUPS.items():
        chosen = [run for run in runs if run.label in labels]
        if chosen:
            options.data.with_name(f"{name}.svg").write_text(pareto_svg(compare_runs(chosen)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
