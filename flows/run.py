"""A run as Prefect sees it: a flow of the run, in it one of each iteration, in it the stages.

Tasks take and return names and small numbers; tables and weights stay in the store. They
run one after another, since they share one warm engine, in this process or in a child of it.
Prefect's own result cache stays off: the store's manifests say what is done.
"""

from __future__ import annotations

from typing import Any

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run

from flows import retry
from flows.context import open_iteration
from flows.iteration import run_iteration
from flows.work import do_work, engines_closed_at_end


@flow(name="csr-run", flow_run_name="{run_id}")
def run_flow(home: str, run_id: str, num_iterations: int) -> None:
    """Run iterations 0 to `num_iterations` of a prepared run; 0 evaluates the base model."""
    with engines_closed_at_end():
        for iteration in range(num_iterations + 1):
            iteration_flow(home, run_id, iteration)


@flow(name="csr-iteration", flow_run_name="{run_id} {iteration:02d}")
def iteration_flow(home: str, run_id: str, iteration: int) -> None:
    """Bring one iteration to its end; what is done already is skipped."""
    context = open_iteration(home, run_id, iteration)

    def as_task(stage: str, *shard: int) -> None:
        label = " ".join([f"{stage} {iteration:02d}", *(f"shard {number}" for number in shard)])
        stage_task.with_options(name=stage, task_run_name=label)(
            home, str(context.attempt.id), stage, *shard
        )

    run_iteration(iteration, context.num_shards, as_task)


def _is_worth_a_retry(_task: Any, _run: Any, state: State[Any]) -> bool:
    try:
        state.result()
    except BaseException as error:
        return retry.try_again(error)
    return False


@task(cache_policy=NO_CACHE, retries=retry.MAX_TRIES - 1, retry_condition_fn=_is_worth_a_retry)
def stage_task(home: str, attempt_id: str, stage: str, shard: int | None = None) -> None:
    """Run one stage; see `flows.stages` for what each does. A second try has smaller batches."""
    do_work(home, attempt_id, stage, shard, num_waves=retry.num_waves(task_run.run_count))
