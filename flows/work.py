"""One stage's work where the recipe wants it: in this process, or in a child of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from csr.errors import EngineLost, RunFailed
from flows.context import IterationContext, open_attempt
from flows.engines import close_engines
from flows.iteration import do_stage, is_done
from flows.ray_workers import close_ray_workers, ray_workers
from flows.stage_names import ENGINES
from flows.stage_process import close_stage_processes, stage_process
from flows.tracking import close_trackers, tell_tracker
from storage.manifest import StageRecord, utc_now

_num_open = 0
"""Blocks of `engines_closed_at_end` that are under way."""


def do_work(
    home: str, attempt_id: str, stage: str, shard: int | None = None, *, num_waves: int = 1
) -> None:
    """Run one stage of an attempt, unless it is done, and have the run's tracker told.

    See `flows.iteration` for what each does. Call it inside `engines_closed_at_end`. EngineLost
    once the lost engine's memory is free, so that the caller may try again.
    """
    _do(home, attempt_id, stage, shard, num_waves)
    tell_tracker(home, attempt_id)


def _do(home: str, attempt_id: str, stage: str, shard: int | None, num_waves: int) -> None:
    context, number = open_attempt(home, attempt_id), () if shard is None else (shard,)
    if context.recipe.ray is not None and stage in ENGINES:
        if ENGINES[stage] == "sampler":
            if not is_done(context, stage, *number):
                _do_on_ray(home, context, stage, shard, num_waves)
            return
        close_ray_workers()  # training wants the GPUs
    isolated = context.recipe.isolation == "process" and stage in ENGINES
    if isolated and not is_done(context, stage, *number):
        _do_in_child(home, context, stage, shard, num_waves)
        return
    lost = None
    try:
        do_stage(context, stage, *number, num_waves=num_waves)
    except EngineLost as error:
        lost = str(error)
    # Not inside the handler: there the traceback still holds the engine's memory.
    if lost is not None:
        close_engines()
        raise EngineLost(lost)


@contextmanager
def engines_closed_at_end() -> Iterator[None]:
    """Close the engines of this process, and end its stage process, however the work ends.

    Of nested blocks the outermost does it: the engines stay warm from one iteration to the next.
    """
    global _num_open
    _num_open += 1
    try:
        yield
    finally:
        _num_open -= 1
        if _num_open == 0:
            close_ray_workers()
            close_stage_processes()
            close_engines()
            close_trackers()


def _do_on_ray(
    home: str, context: IterationContext, stage: str, shard: int | None, num_waves: int
) -> None:
    assert context.recipe.ray is not None
    with _lost_engine_recorded(context, stage, shard):
        ray_workers(context.recipe.ray, home).do(
            context.attempt,
            stage,
            shard,
            num_waves=num_waves,
            timeout_seconds=context.recipe.stage_timeout_seconds,
        )


def _do_in_child(
    home: str, context: IterationContext, stage: str, shard: int | None, num_waves: int
) -> None:
    with _lost_engine_recorded(context, stage, shard):
        stage_process(home).do(
            context.attempt,
            stage,
            shard,
            num_waves=num_waves,
            timeout_seconds=context.recipe.stage_timeout_seconds,
        )


@contextmanager
def _lost_engine_recorded(
    context: IterationContext, stage: str, shard: int | None
) -> Iterator[None]:
    """Another process does the stage; where that dies, it is recorded here."""
    if _num_open == 0:  # a thread that comes late is not to start what nobody would end
        raise RunFailed("The run was stopped. The same command resumes it.")
    started, started_at = time.monotonic(), utc_now()
    try:
        yield
    except EngineLost as error:
        manifest = context.attempt.manifest
        if manifest.read().status != "failed":  # the other had no time to say so
            record = StageRecord(
                stage=stage,
                shard=shard or 0,
                status="failed",
                fingerprint="",
                message=f"{type(error).__name__}: {error}",
                started_at=started_at,
                finished_at=utc_now(),
                seconds=time.monotonic() - started,
            )
            manifest.record(record)
            manifest.update(status="failed")
        raise
