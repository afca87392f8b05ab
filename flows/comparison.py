"""`csr compare`: reads runs from the store and sets them side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from csr.errors import ConfigError
from csr.protocols import Json
from flows.compare import Comparison, RunMetrics, compare_runs
from flows.conditions import different_conditions, read_conditions
from flows.costs import costs_up_to
from flows.home import open_store
from flows.paired_attempts import compared
from storage.attempt import AttemptDir
from storage.run_store import RunStore


def compare(home: Path, run_ids: Sequence[str], control: str | None = None) -> Comparison:
    """The runs grouped by recipe name; `control` is the name of the control's recipe.

    ConfigError without runs; DataError for an unknown run.
    """
    store = open_store(home)
    if not run_ids:
        known = ", ".join(record.run_id for record in store.runs())
        raise ConfigError(f"Name the runs to compare. There are: {known or 'none yet'}.")
    runs = [run_metrics(home, run_id) for run_id in run_ids]
    comparison = compare_runs(runs, control=control)
    labels = dict(zip(run_ids, runs, strict=True))
    conditions = {run_id: read_conditions(_evaluated(store, run_id)[0]) for run_id in run_ids}
    return dataclasses.replace(
        comparison,
        tests=compared(_pairs(store, labels, control)),
        conditions=conditions,
        cautions=_cautions(conditions),
    )


def run_metrics(home: Path, run_id: str) -> RunMetrics:
    """The figures of finished iterations, each with what was spent up to it."""
    store = open_store(home)
    record = store.run(run_id)
    attempts = [store.attempt(run_id, number) for number in store.iterations(run_id)]
    base, *manifests = [attempt.manifest.read() for attempt in attempts]
    return RunMetrics(
        label=record.recipe,
        seed=record.seed,
        base=base.metrics,
        iterations=[
            {**manifest.metrics, **costs}
            for manifest, costs in zip(manifests, costs_up_to(manifests), strict=True)
            if manifest.metrics
        ],
    )


def _evaluated(store: RunStore, run_id: str) -> list[AttemptDir]:
    """The base, then the iterations that have figures."""
    base, *others = [store.attempt(run_id, number) for number in store.iterations(run_id)]
    return [base, *(attempt for attempt in others if attempt.manifest.read().metrics)]


def _pairs(
    store: RunStore, runs: dict[str, RunMetrics], control: str | None
) -> list[tuple[AttemptDir, AttemptDir]]:
    """The last iteration of each run against its base, and against the control of its seed."""
    attempts = {run_id: _evaluated(store, run_id) for run_id in runs}
    pairs = [(found[0], found[-1]) for found in attempts.values() if len(found) > 1]
    controls = {run.seed: attempts[name] for name, run in runs.items() if run.label == control}
    for run_id, run in runs.items():
        if run.label == control or run.seed not in controls:
            continue
        number = min(len(attempts[run_id]), len(controls[run.seed])) - 1
        if number > 0:
            pairs.append((controls[run.seed][number], attempts[run_id][number]))
    return pairs


def _cautions(conditions: dict[str, Json]) -> tuple[str, ...]:
    """Runs whose figures hold under other conditions than those of the first with the benchmark."""
    first: dict[str, tuple[str, Json]] = {}
    told = []
    for run_id, benchmarks in conditions.items():
        for name, found in benchmarks.items():
            other_id, other = first.setdefault(name, (run_id, found))
            if different := different_conditions(other, found):
                told.append(
                    f"{name}: {run_id} and {other_id} were asked under other conditions "
                    f"({', '.join(different)}), so their figures are not comparable"
                )
    return tuple(told)
