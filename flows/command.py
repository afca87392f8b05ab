"""`csr run`, `csr rerun`, `csr evaluate`: the flows as the command line starts them.

What a person can mend is found before Prefect starts, and nothing is started for work that is
done. Prefect is imported late: it reads its settings and its home when it is imported.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from flows.config import Recipe
from flows.interrupts import orderly_sigterm
from flows.launch import PreparedRun, prepared_run, recipe_of
from flows.progress import live_bars, log_to_console
from flows.reporting import write_report
from flows.requests import IterationRequest, RunRequest
from flows.rerun import opened_iteration

logger = logging.getLogger("csr")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run."""

    run_id: str
    report: Path


def run(request: RunRequest) -> Outcome:
    """Run a recipe to its end, or resume it; nothing is done for a run that is finished.

    CSRError before anything is written where the recipe, the data or the model cannot work;
    RunFailed where the flow does not finish.
    """
    log_to_console()
    with live_bars(), orderly_sigterm():
        recipe, run_id = recipe_of(request)
        return run_recipe(request, recipe, run_id)


def run_recipe(request: RunRequest, recipe: Recipe, run_id: str) -> Outcome:
    """The flow of a run whose recipe is read already."""
    with prepared_run(recipe, run_id, request.home_path) as prepared:
        if prepared.is_finished():
            logger.info("%s: finished already, nothing to do", run_id)
            return Outcome(run_id, write_report(prepared.store.home, run_id))
        _start_flow(prepared, request)
        return Outcome(run_id, prepared.report)


def rerun(request: IterationRequest) -> str:
    """Do one iteration over, in an attempt of its own; the attempt's ID."""
    log_to_console()
    with live_bars(), orderly_sigterm(), opened_iteration(request) as work:
        from flows.run import csr_iteration
        from flows.server import prefect_server

        with prefect_server():
            csr_iteration(request)
        return work.attempt_id


def _start_flow(prepared: PreparedRun, request: RunRequest) -> None:
    from flows.run import csr_run
    from flows.server import prefect_server

    with prefect_server():
        csr_run(request.model_copy(update={"home": prepared.home, "run_id": prepared.run_id}))
