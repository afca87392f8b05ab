"""`csr compare`: reads runs from the store and sets them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from csr.errors import ConfigError
from flows import listing
from flows.compare import Comparison, RunMetrics, compare_runs
from flows.home import open_store


def compare(home: Path, run_ids: Sequence[str], control: str | None = None) -> Comparison:
    """The runs grouped by recipe name; `control` is the name of the control's recipe.

    ConfigError without runs; DataError for an unknown run.
    """
    if not run_ids:
        known = ", ".join(record.run_id for record in open_store(home).runs())
        raise ConfigError(f"Name the runs to compare. There are: {known or 'none yet'}.")
    return compare_runs([_metrics(home, run_id) for run_id in run_ids], control=control)


def _metrics(home: Path, run_id: str) -> RunMetrics:
    record = open_store(home).run(run_id)
    shape = listing.run(home, run_id)
    finished = [line["metrics"] for line in shape["iterations"] if line["metrics"]]
    return RunMetrics(
        label=record.recipe, seed=record.seed, base=shape["base"]["metrics"], iterations=finished
    )
