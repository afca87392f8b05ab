"""`csr compare`: reads runs from the store and sets them side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from csr.errors import ConfigError, DataError
from csr.protocols import Json
from flows.compare import Comparison, RunMetrics, compare_runs, last_common, standing_caution
from flows.conditions import different_conditions, read_conditions
from flows.costs import costs_up_to
from flows.home import open_store
from flows.paired_attempts import compared
from storage.attempt import AttemptDir
from storage.lineage import is_held, is_stale
from storage.run_store import RunStore


def compare(home: Path, run_ids: Sequence[str], control: str | None = None) -> Comparison:
    """The runs grouped by recipe name; `control` is the name of the control's recipe.

    ConfigError without runs; DataError for an unknown run and for one without an attempt.
    """
    store = open_store(home)
    if not run_ids:
        known = ", ".join(record.run_id for record in store.runs())
        raise ConfigError(f"Name the runs to compare. There are: {known or 'none yet'}.")
    runs = [run_metrics(home, run_id) for run_id in run_ids]
    comparison = compare_runs(runs, control=control)
    labels = dict(zip(run_ids, runs, strict=True))
    attempts = {run_id: _evaluated(store, run_id) for run_id in run_ids}
    conditions = {run_id: read_conditions(found[0]) for run_id, found in attempts.items()}
    standing = [each for found in attempts.values() for each in _standing(store, found.values())]
    return dataclasses.replace(
        comparison,
        tests=compared(_pairs(labels, attempts, control)),
        conditions=conditions,
        cautions=(*_cautions(conditions), *standing),
    )


def run_metrics(home: Path, run_id: str) -> RunMetrics:
    """The figures of finished iterations, each with what was spent up to it.

    DataError where the run has no attempt yet.
    """
    store = open_store(home)
    record = store.run(run_id)
    base, *manifests = [attempt.manifest.read() for attempt in _attempts(store, run_id)]
    return RunMetrics(
        label=record.recipe,
        seed=record.seed,
        base=base.metrics,
        iterations={
            manifest.iteration: {**manifest.metrics, **costs}
            for manifest, costs in zip(manifests, costs_up_to(manifests), strict=True)
            if manifest.metrics
        },
    )


def _attempts(store: RunStore, run_id: str) -> list[AttemptDir]:
    """The current attempts, the base's first."""
    attempts = [store.attempt(run_id, number) for number in store.iterations(run_id)]
    if not attempts:
        raise DataError(
            f"run {run_id} has nothing to compare: it ended before its base model's evaluation "
            "began. Start the command that began it again, or leave it out."
        )
    return attempts


def _evaluated(store: RunStore, run_id: str) -> dict[int, AttemptDir]:
    """Iteration -> its attempt: the base, then the iterations that have figures."""
    base, *others = _attempts(store, run_id)
    having = [attempt for attempt in others if attempt.manifest.read().metrics]
    return {attempt.id.iteration: attempt for attempt in (base, *having)}


def _pairs(
    runs: dict[str, RunMetrics], attempts: dict[str, dict[int, AttemptDir]], control: str | None
) -> list[tuple[AttemptDir, AttemptDir]]:
    """The last iteration of each run against its base, and against the control of its seed."""
    pairs = [(found[0], found[max(found)]) for found in attempts.values() if len(found) > 1]
    controls = {run.seed: attempts[name] for name, run in runs.items() if run.label == control}
    for run_id, run in runs.items():
        if run.label == control or run.seed not in controls:
            continue
        number = last_common([attempts[run_id], controls[run.seed]])
        if number:
            pairs.append((controls[run.seed][number], attempts[run_id][number]))
    return pairs


def _standing(store: RunStore, attempts: Iterable[AttemptDir]) -> list[str]:
    """Attempts that the run does not build on: they count as results, with a word of it."""
    told = []
    for attempt in attempts:
        manifest = attempt.manifest.read()
        held, stale = is_held(store, manifest), is_stale(store, manifest)
        told.append(standing_caution(str(attempt.id), held=held, stale=stale))
    return [caution for caution in told if caution]


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
