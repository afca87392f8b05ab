"""`csr compare`: reads runs from the store and sets them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from csr.errors import ConfigError
from flows.compare import Comparison, RunMetrics, compare_runs
from flows.costs import costs_up_to
from flows.home import open_store


def compare(home: Path, run_ids: Sequence[str], control: str | None = None) -> Comparison:
    """The runs grouped by recipe name; `control` is the name of the control's recipe.

    ConfigError without runs; DataError for an unknown run.
    """
    if not run_ids:
        known = ", ".join(record.run_id for record in open_store(home).runs())
        raise ConfigError(f"Name the runs to compare. There are: {known or 'none yet'}.")
    return compare_runs([run_metrics(home, run_id) for run_id in run_ids], control=control)


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
