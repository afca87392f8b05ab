"""A run as Prefect sees it: a flow of the run, in it one of each iteration, in it the stages.

The same flows serve the command line, schedules and the forms of the flow UI. Tasks take and
return names and small numbers; tables and weights stay in the store. They run one after
another, since they share one warm engine, in this process or in a child of it. Prefect's own
result cache stays off: the store's manifests say what is done.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run, task_run
from prefect.states import Failed

from csr.errors import CSRError, RunFailed, VerdictsWanted
from flows import retry, suspending
from flows.artifacts import Narrator, Pages, tell_run
from flows.config import Recipe
from flows.context import open_attempt
from flows.evaluating import evaluation_of
from flows.events import RUN_ENDED, VERDICTS_WANTED, emit
from flows.forms import EvaluateRequest, IterationRequest, RunRequest
from flows.iteration import needs_engine, run_stages
from flows.launch import Held, do_iterations, prepared_run, recipe_of
from flows.progress import log_to_console
from flows.ray_workers import close_ray_workers
from flows.rerun import IterationWork, opened_iteration
from flows.settling import label_this_run
from flows.slots import engine_slot
from flows.tracebacks import TOLD, leave_out_tracebacks
from flows.work import do_work
from storage.attempt import parse_iteration_id
from storage.run_store import RunStore

P = ParamSpec("P")

MAX_STARTS = 5
"""Of one flow run. A run that crashes each time must not be started for ever by itself. That a
suspended run is woken is no start, as Prefect counts."""


def _told(body: Callable[P, Any]) -> Callable[P, Any]:
    """A user's mistake and a run that failed end a flow with their message, not a traceback."""

    @functools.wraps(body)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Any:
        log_to_console()
        try:
            return body(*args, **kwargs)
        except TOLD as error:
            if isinstance(error, VerdictsWanted) and suspending.can_suspend():
                emit(VERDICTS_WANTED, error.attempt_id.partition("/")[0], message=str(error))
                suspending.suspend_for(error)
            leave_out_tracebacks()
            names: dict[type, str] = {Held: "Held", VerdictsWanted: "Waiting"}
            name = names.get(type(error), "Failed")
            return Failed(name=name, message=str(error), data=error)

    return wrapped


def _begin() -> None:
    """What each flow does first. RunFailed where it was started too often."""
    label_this_run()
    if flow_run.run_count > MAX_STARTS:
        raise RunFailed(
            f"started {flow_run.run_count} times without coming to its end: no more by itself. "
            "Look at the logs of the earlier starts; then start a new run of the deployment, "
            "which goes on where this one stopped."
        )


def _run_name() -> str:
    """The run's ID; before a bad recipe is refused, what was asked for must do."""
    request = RunRequest.model_validate(flow_run.parameters["request"])
    try:
        return recipe_of(request.dated(_scheduled_for()))[1]
    except CSRError:
        return request.recipe


def _iteration_name() -> str:
    request = IterationRequest.model_validate(flow_run.parameters["request"])
    try:
        asked = parse_iteration_id(request.iteration_id)
    except CSRError:
        return request.iteration_id
    again = " rerun" if request.attempt == "new" else ""
    return f"{asked.run_id} {asked.iteration:02d}{again}"


def _evaluation_name() -> str:
    return f"evaluate {EvaluateRequest.model_validate(flow_run.parameters['request']).target}"


def _scheduled_for() -> datetime:
    """A retry, or a late start after midnight, is still of the day it was scheduled for."""
    scheduled: datetime = flow_run.scheduled_start_time or datetime.now(UTC)
    return scheduled.astimezone()


@flow(name="csr-run", flow_run_name=_run_name)
@_told
def csr_run(request: RunRequest) -> None:
    """Run a recipe to its end, or go on with it. Iteration 0 evaluates the base model."""
    recipe, run_id = recipe_of(request.dated(_scheduled_for()))
    _do_run(recipe, run_id, request.home_path)


@flow(name="csr-evaluate", flow_run_name=_evaluation_name)
@_told
def csr_evaluate(request: EvaluateRequest) -> None:
    """Ask one policy the benchmarks' questions: a run without iterations."""
    recipe, run_id = evaluation_of(request)
    _do_run(recipe, run_id, request.home_path)


def _do_run(recipe: Recipe, run_id: str, home: Path) -> None:
    _begin()
    pages = Pages()
    with prepared_run(recipe, run_id, home) as run:

        def do(iteration: int) -> None:
            iteration_id = f"{run_id}/{iteration:02d}"
            csr_iteration(
                IterationRequest(home=run.home, iteration_id=iteration_id, attempt="current")
            )
            tell_run(run.store, run_id, pages)

        try:
            do_iterations(run, do)
        finally:
            emit(RUN_ENDED, run_id)


@flow(name="csr-iteration", flow_run_name=_iteration_name)
@_told
def csr_iteration(request: IterationRequest) -> str:
    """Do one iteration; what is done already is skipped. Returns the attempt's ID."""
    _begin()
    with opened_iteration(request) as work:
        attempt = open_attempt(work.home, work.attempt_id).attempt
        narrator = Narrator(RunStore(Path(work.home)), attempt, work.num_shards)
        telling = threading.Lock()

        def as_task(stage: str, *shard: int) -> None:
            label = " ".join([f"{stage} {work.iteration:02d}", *(f"shard {n}" for n in shard)])
            do = stage_task.with_options(name=stage, task_run_name=label)
            outcome = do(work.home, work.attempt_id, stage, *shard)
            if isinstance(outcome, State):
                outcome.result()  # raises what the stage was refused for
            with telling:
                narrator.tell(stage, *shard)

        with _slot_for(work):
            run_stages(
                work.stages,
                work.num_shards,
                as_task,
                num_at_once=work.num_at_once,
                stop=close_ray_workers,
            )
    return work.attempt_id


def _slot_for(work: IterationWork) -> AbstractContextManager[None]:
    """Held over all of an iteration: its stages share warm engines."""
    needed = needs_engine(work.home, work.attempt_id, work.stages)
    return engine_slot() if needed else nullcontext()


def _is_worth_a_retry(_task: Any, _run: Any, state: State[Any]) -> bool:
    try:
        state.result()
    except BaseException as error:
        return retry.try_again(error)
    return False


@task(cache_policy=NO_CACHE, retries=retry.MAX_TRIES - 1, retry_condition_fn=_is_worth_a_retry)
@_told
def stage_task(home: str, attempt_id: str, stage: str, shard: int | None = None) -> None:
    """Run one stage; see `flows.iteration` for what each does. A second try has smaller batches."""
    do_work(home, attempt_id, stage, shard, num_waves=retry.num_waves(task_run.run_count))
