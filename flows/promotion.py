"""`csr promote`: which attempt later iterations build on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from csr.errors import DataError
from csr.protocols import Json
from flows.home import open_store
from flows.reporting import write_report
from storage.attempt import IterationId, parse_iteration_id
from storage.lineage import stale_iterations
from storage.run_store import RunStore


def promote(home: Path, attempt_id: str) -> Json:
    """`{"iteration_id", "attempt", "stale"}`; `stale` lists the iterations built on another.

    An attempt that a gate holds may be promoted: a person overrules the gate so. DataError
    for an attempt that has not come to its end.
    """
    asked = parse_iteration_id(attempt_id)
    store = open_store(home)
    with store.lock(asked.run_id):
        attempt = store.attempt(asked.run_id, asked.iteration, asked.attempt)
        manifest = attempt.manifest.read()
        if manifest.status not in ("done", "held"):
            raise DataError(
                f"{attempt.id} is {manifest.status}: later iterations can build only on an attempt "
                "that has come to its end. The command that began it, without --until, goes on "
                "with it."
            )
        store.set_current(asked.run_id, asked.iteration, attempt.number, promoted=True)
        stale = stale_iterations(store, asked.run_id)
        write_report(store.home, asked.run_id)
    _tell_server(store, asked.run_id)
    return {
        "iteration_id": str(IterationId(asked.run_id, asked.iteration)),
        "attempt": attempt.number,
        "stale": [str(IterationId(asked.run_id, number)) for number in stale],
    }


def _tell_server(store: RunStore, run_id: str) -> None:
    """The flow UI's table of figures tells stale iterations, where there is a server to tell."""
    if "PREFECT_API_URL" not in os.environ:
        return
    from flows.artifacts import Pages, tell_run

    tell_run(store, run_id, Pages())


def table(shape: Json) -> Any:
    """The shape of `promote` in words."""
    said = f"{shape['iteration_id']}: attempt {shape['attempt']} is the current one."
    if shape["stale"]:
        said += f" Stale, as built on another: {', '.join(shape['stale'])}. `csr run` with the "
        said += "run's recipe makes them anew."
    return said
