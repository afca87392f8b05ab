"""The order of an iteration: measure, sample shard after shard, pair, train, evaluate.

Each stage reads from the store and writes to it, and the manifest there alone says what is
done; so an interrupted iteration goes on where it stopped. Iteration 0 only evaluates the
base model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from flows import stages
from flows.context import IterationContext, Unfinished, open_iteration

STAGES: dict[str, Callable[..., object]] = {
    "measure": stages.measure,
    "sample": stages.sample,
    "pair": stages.pair,
    "train": stages.train,
    "evaluate": stages.evaluate,
}
BATCHED = ("measure", "sample", "evaluate")
"""Stages that can take their prompts in smaller batches."""


def run_iteration(iteration: int, num_shards: int, do: Callable[..., None]) -> None:
    """Bring one iteration to its end.

    `do` is called with a stage's name, and for "sample" with the shard's number; it skips
    what is done already.
    """
    if iteration > 0:
        do("measure")
        for shard in range(num_shards):
            do("sample", shard)
        do("pair")
        do("train")
    do("evaluate")


def do_stage(context: IterationContext, stage: str, *shard: int, num_waves: int = 1) -> None:
    """Run one stage, in this process; one that works in batches, in `num_waves` of them."""
    waves = {"num_waves": num_waves} if stage in BATCHED else {}
    STAGES[stage](context, *shard, **waves)


def is_done(context: IterationContext, stage: str, *shard: int) -> bool:
    """Whether the manifest says that a stage is done. Starts no engine, changes nothing."""
    try:
        do_stage(replace(context, only_look=True), stage, *shard)
    except Unfinished:
        return False
    return True


def is_finished(home: str, run_id: str, num_iterations: int) -> bool:
    """Whether every stage of the run is done, as the manifests tell. Changes nothing."""
    try:
        for iteration in range(num_iterations + 1):
            context = open_iteration(home, run_id, iteration, only_look=True)
            run_iteration(iteration, context.num_shards, partial(do_stage, context))
    except Unfinished:
        return False
    return True
