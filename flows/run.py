"""A run as Prefect sees it: a flow of the run, in it one of each iteration, in it the stages.

Tasks take and return names and small numbers; tables and weights stay in the store. They
run in this process, one after another, since they share one warm engine. Prefect's own
result cache stays off: the store's manifests say what is done.
"""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.context import open_iteration
from flows.iteration import do_stage, run_iteration


@flow(name="csr-run", flow_run_name="{run_id}")
def run_flow(home: str, run_id: str, num_iterations: int) -> None:
    """Run iterations 0 to `num_iterations` of a prepared run; 0 evaluates the base model."""
    for iteration in range(num_iterations + 1):
        iteration_flow(home, run_id, iteration)


@flow(name="csr-iteration", flow_run_name="{run_id} {iteration:02d}")
def iteration_flow(home: str, run_id: str, iteration: int) -> None:
    """Bring one iteration to its end; what is done already is skipped."""

    def as_task(stage: str, *shard: int) -> None:
        label = " ".join([f"{stage} {iteration:02d}", *(f"shard {number}" for number in shard)])
        stage_task.with_options(name=stage, task_run_name=label)(
            home, run_id, iteration, stage, *shard
        )

    run_iteration(iteration, open_iteration(home, run_id, iteration).num_shards, as_task)


@task(cache_policy=NO_CACHE)
def stage_task(
    home: str, run_id: str, iteration: int, stage: str, shard: int | None = None
) -> None:
    """Run one stage; see `flows.stages` for what each does."""
    number = () if shard is None else (shard,)
    do_stage(open_iteration(home, run_id, iteration), stage, *number)
