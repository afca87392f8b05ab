"""A DPO step by the project's own trainer, with and without gradient checkpointing.

A step here is one batch: the forward and backward pass of its pairs, and an update. The training
is ended from its progress report once enough steps have passed, so nothing is merged or saved.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench, free_memory
from benchmarks.gpu.inputs import write_pairs
from benchmarks.gpu.record import Json
from benchmarks.gpu.timing import spread
from csr.errors import EngineLost
from csr.trainers import dpo
from csr.world.tokenizer import EOS_ID

_NUM_COLD = 1
"""Intervals left out at the start of the steps: kernels are chosen and memory is first taken."""


class _EnoughError(Exception):
    """Ends a training that has been measured."""


def measure(bench: Bench) -> Json:
    """`without` and `with_checkpointing`, at the first batch size that fits without."""
    load = bench.size.load
    prompts = bench.inputs.prompts("dpo", max(load.dpo_batch_sizes) * load.dpo_batches)
    figures: Json = {"response_tokens": load.response_tokens, "out_of_memory_at_batch": []}
    for batch in load.dpo_batch_sizes:
        try:
            first = _trained(bench, prompts, batch, checkpointing=False)
            break
        except EngineLost as error:
            if batch == load.dpo_batch_sizes[-1]:
                raise
            figures["out_of_memory_at_batch"].append({"batch": batch, "said": str(error)})
        free_memory(bench.device)  # outside the handler, whose error holds the training's tensors
    figures |= {"batch": batch, "without": _summed([first])}
    bench.keep(figures)
    return figures | _in_turns(bench, prompts, batch, first)


def _in_turns(bench: Bench, prompts: Any, batch: int, first: Json) -> Json:
    """The other way, then each again as long as there is time for one more model to be loaded."""
    runs: dict[str, list[Json]] = {"without": [first], "with_checkpointing": []}
    order = itertools.islice(
        itertools.cycle(["with_checkpointing", "without"]), 2 * bench.size.load.rounds - 1
    )
    for name in order:
        enough = first["whole_seconds"] * 1.3
        if runs[name] and not bench.clock.allows(enough, f"DPO {name}: a further training"):
            break
        runs[name].append(
            _trained(bench, prompts, batch, checkpointing=name == "with_checkpointing")
        )
    return {name: _summed(found) for name, found in runs.items()}


def _trained(bench: Bench, prompts: Any, batch: int, *, checkpointing: bool) -> Json:
    """Seconds of each reference batch and of each step, and peak memory in the steps."""
    import torch

    load, shape = bench.size.load, bench.size.shape
    pairs = write_pairs(
        bench.work / "pairs.parquet",
        prompts[: batch * load.dpo_batches],
        num_tokens=load.response_tokens,
        vocabulary=shape.vocabulary,
        end_id=EOS_ID,
    )
    config = dpo.Config(
        batch_size=batch,
        gradient_accumulation_steps=1,
        gradient_checkpointing=checkpointing,
        lora_rank=shape.lora_rank,
        lora_alpha=2 * shape.lora_rank,
        device="cuda" if bench.device == "cuda" else "cpu",
        checkpoint_every_num_steps=0,
    )
    reports: list[float] = []

    def progress(done: int, total: int) -> None:
        # Each report follows a loss that was read on the CPU: the device has done it.
        reports.append(time.perf_counter())
        if len(reports) == load.dpo_batches and bench.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        if len(reports) == 2 * load.dpo_batches:
            raise _EnoughError

    started = time.perf_counter()
    with contextlib.suppress(_EnoughError):
        _train(bench, config, pairs, progress)
    peak = torch.cuda.max_memory_allocated() if bench.device == "cuda" else None
    times = [later - earlier for earlier, later in itertools.pairwise(reports)]
    free_memory(bench.device)
    return {
        "reference_seconds": times[: load.dpo_batches - 1],
        "step_seconds": times[load.dpo_batches + _NUM_COLD :],
        "load_seconds": reports[0] - started,
        "whole_seconds": reports[-1] - started,
        "peak_bytes": peak,
        "batch": batch,
    }


def _train(bench: Bench, config: dpo.Config, pairs: Path, progress: Any) -> None:
    dpo.build(config).train(
        policy=bench.models.base,
        data_path=pairs,
        output_dir=bench.work / "trained",
        seed=0,
        progress=progress,
    )


def _summed(runs: list[Json]) -> Json:
    """All steps of all trainings of one kind."""
    batch = runs[0]["batch"]
    steps = [each for run in runs for each in run["step_seconds"]]
    reference = [each for run in runs for each in run["reference_seconds"]]
    peaks = [run["peak_bytes"] for run in runs if run["peak_bytes"] is not None]
    return {
        "step_seconds": spread(steps),
        "seconds_per_pair": spread(steps)["median"] / batch,
        "reference_seconds_per_pair": spread(reference)["median"] / batch,
        "load_seconds": spread([run["load_seconds"] for run in runs]),
        "trainings": len(runs),
        "peak_bytes": max(peaks) if peaks else None,
    }
