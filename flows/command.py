"""`csr run`, `csr rerun`, `csr evaluate`: the flows as the command line starts them.

What a person can mend is found before Prefect starts, and nothing is started for work that is
done. Prefect is imported late: it reads its settings and its home when it is imported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.config import Recipe
from flows.evaluating import evaluation_of
from flows.forms import EvaluateRequest, IterationRequest, RunRequest
from flows.interrupts import orderly_sigterm
from flows.launch import PreparedRun, prepared_run, recipe_of
from flows.progress import live_bars, log_to_console
from flows.reporting import write_report
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

    def flow(prepared: PreparedRun) -> None:
        from flows.run import csr_run

        csr_run(request.model_copy(update={"home": prepared.home, "run_id": prepared.run_id}))

    with _terminal():
        return _finish(*recipe_of(request), request.home_path, flow)


def evaluate(request: EvaluateRequest) -> Outcome:
    """Ask a policy the benchmarks' questions. Errors as `run`."""

    def flow(prepared: PreparedRun) -> None:
        from flows.run import csr_evaluate

        csr_evaluate(request)

    with _terminal():
        return _finish(*evaluation_of(request), request.home_path, flow)


def rerun(request: IterationRequest) -> str:
    """Do one iteration over, in an attempt of its own; the attempt's ID."""
    with _terminal(), opened_iteration(request) as work:
        from flows.run import csr_iteration
        from flows.server import prefect_server

        with prefect_server():
            csr_iteration(request)
        return work.attempt_id


def _finish(
    recipe: Recipe, run_id: str, home: Path, flow: Callable[[PreparedRun], None]
) -> Outcome:
    """Start the flow of a run, unless nothing is left to do."""
    with prepared_run(recipe, run_id, home) as prepared:
        if prepared.is_finished():
            logger.info("%s: finished already, nothing to do", run_id)
            return Outcome(run_id, write_report(prepared.store.home, run_id))
        from flows.server import prefect_server

        with prefect_server():
            flow(prepared)
        return Outcome(run_id, prepared.report)


@contextmanager
def _terminal() -> Iterator[None]:
    log_to_console()
    with live_bars(), orderly_sigterm():
        yield
