"""The order of an iteration: measure, sample shard after shard, review, pair, train, evaluate,
gate.

Each stage reads from the store and writes to it, and the manifest there alone says what is
done; so an interrupted iteration goes on where it stopped. Iteration 0 only evaluates the
base model, and no gate can trip there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from csr.memory import give_back_freed_memory
from flows import stages
from flows.at_once import each_at_once
from flows.benchmarks import evaluate
from flows.context import IterationContext, Unfinished, open_attempt, open_iteration
from flows.gating import gate
from flows.reviewing import review
from flows.stage_names import ENGINES
from flows.training import train

STAGES: dict[str, Callable[..., object]] = {
    "measure": stages.measure,
    "sample": stages.sample,
    "review": review,
    "pair": stages.pair,
    "train": train,
    "evaluate": evaluate,
    "gate": gate,
}
"""In the order in which they run."""

BASE_STAGES = ("evaluate", "gate")
"""Those of iteration 0."""

BATCHED = ("measure", "sample", "evaluate")
"""Stages that can take their prompts in smaller batches."""


def stages_of(
    iteration: int, from_stage: str | None = None, until_stage: str | None = None
) -> list[str]:
    """The stages that an attempt runs itself, both ends included; None is no bound."""
    names = list(STAGES)
    first = names.index(from_stage) if from_stage else 0
    last = names.index(until_stage) if until_stage else len(names) - 1
    return [name for name in names[first : last + 1] if iteration > 0 or name in BASE_STAGES]


def run_stages(
    names: Sequence[str],
    num_shards: int,
    do: Callable[..., object],
    *,
    num_at_once: int = 1,
    stop: Callable[[], object] = lambda: None,
) -> None:
    """Bring stages to their end, one after another; of shards, `num_at_once` at a time.

    `do` is called with a stage's name, and for "sample" with the shard's number, in a thread each
    where there are several at a time (`stop` ends these early); it skips what is done already.
    """
    for name in names:
        if name == "sample":
            each_at_once(partial(do, name), range(num_shards), num_at_once, stop)
        else:
            do(name)


def do_stage(context: IterationContext, stage: str, *shard: int, num_waves: int = 1) -> None:
    """Run one stage, in this process; one that works in batches, in `num_waves` of them."""
    waves = {"num_waves": num_waves} if stage in BATCHED else {}
    STAGES[stage](context, *shard, **waves)
    if stage in ENGINES and not context.only_look:
        give_back_freed_memory()


def is_done(context: IterationContext, stage: str, *shard: int) -> bool:
    """Whether the manifest says that a stage is done. Starts no engine, changes nothing."""
    try:
        do_stage(replace(context, only_look=True), stage, *shard)
    except Unfinished:
        return False
    return True


def needs_engine(home: str, attempt_id: str, names: Sequence[str]) -> bool:
    """Whether a stage among these that uses an engine is not done. Changes nothing."""
    context = open_attempt(home, attempt_id, only_look=True)
    names = [name for name in names if name in ENGINES]
    try:
        run_stages(names, context.num_shards, partial(do_stage, context))
    except Unfinished:
        return True
    return False


def is_finished(home: str, run_id: str, num_iterations: int) -> bool:
    """Whether every stage of the run is done, as the manifests tell. Changes nothing."""
    try:
        for iteration in range(num_iterations + 1):
            context = open_iteration(home, run_id, iteration, only_look=True)
            names = stages_of(iteration, context.from_stage)
            run_stages(names, context.num_shards, partial(do_stage, context))
    except Unfinished:
        return False
    return True
