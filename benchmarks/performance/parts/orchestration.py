"""What the flow costs beside the stages: Prefect's flows and tasks against bare calls.

Components are scripted, so that a stage takes no time of its own to speak of; both ways write the
same store. The flow's server is a process of its own, so wall time counts here.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from benchmarks.gpu.inputs import Inputs
from benchmarks.performance.measuring import Json, in_turns, peak_bytes, spread
from benchmarks.performance.settings import SMALL

NUM_ITERATIONS = 2
NUM_SHARDS = 20
"""Of an iteration; CSR's 12,856 prompts in shards of 512 are 26."""


def measure(work: Path, rounds: int) -> Json:
    """Wall seconds of an iteration, both ways, and the difference a task."""
    from flows.command import run
    from flows.forms import RunRequest

    recipe = _write_recipe(work / "scripted")

    def through(name: str, do: Callable[[RunRequest], object]) -> Callable[[int], float]:
        def arm(number: int) -> float:
            with tempfile.TemporaryDirectory(dir=work) as home:
                do(RunRequest(home=home, recipe=str(recipe), run_id=f"{name}-{number}"))
            return NUM_ITERATIONS

        return arm

    found = in_turns({"flow": through("flow", run), "bare": through("bare", _bare)}, rounds)
    seconds = {
        name: [each.wall_seconds / NUM_ITERATIONS for each in runs] for name, runs in found.items()
    }
    extra = [flow - bare for flow, bare in zip(seconds["flow"], seconds["bare"], strict=True)]
    num_tasks = NUM_SHARDS + 5  # measure, pair, train, evaluate, gate
    return {
        "shards": NUM_SHARDS,
        "flow_seconds": spread(seconds["flow"]),
        "bare_seconds": spread(seconds["bare"]),
        "overhead_seconds": spread(extra),
        "overhead_seconds_a_task": spread([each / num_tasks for each in extra]),
        "peak_bytes": peak_bytes(),
    }


def _bare(request: Any) -> None:
    """The stages of every iteration, one call after another."""
    from flows.context import open_attempt
    from flows.forms import IterationRequest
    from flows.iteration import do_stage, run_stages
    from flows.launch import do_iterations, prepared_run, recipe_of
    from flows.rerun import opened_iteration

    recipe, run_id = recipe_of(request)
    with prepared_run(recipe, run_id, request.home_path) as prepared:

        def iterate(number: int) -> None:
            asked = IterationRequest(
                home=prepared.home, iteration_id=f"{run_id}/{number:02d}", attempt="current"
            )
            with opened_iteration(asked) as work:

                def do(stage: str, *shard: int) -> None:
                    do_stage(open_attempt(work.home, work.attempt_id), stage, *shard)

                run_stages(work.stages, work.num_shards, do)

        do_iterations(prepared, iterate)


def _write_recipe(folder: Path) -> Path:
    """A scripted recipe with the images, prompts and policy that it names."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "policy").mkdir(parents=True)
    (folder / "policy/config.json").write_text('{"model_type": "scripted"}\n')
    save_file({"weight": np.zeros(4, dtype=np.float32)}, folder / "policy/model.safetensors")
    refs = Inputs(folder / "images", SMALL.load).images("orchestration", 2 * NUM_SHARDS + 4)
    for name, some in (("train", refs[:-4]), ("heldout", refs[-4:])):
        records = [
            {"id": Path(ref.uri).stem, "image": Path(ref.uri).name, "input": "Describe it."}
            for ref in some
        ]
        text = "\n".join(map(json.dumps, records)) + "\n"
        (folder / f"{name}.jsonl").write_text(text)
    images = str(folder / "images")
    recipe = {
        "name": "scripted",
        "num_iterations": NUM_ITERATIONS,
        "shard_size": 2,
        "data": {
            "prompts": str(folder / "train.jsonl"),
            "images": images,
            "num_prompts_per_iteration": 2 * NUM_SHARDS,
        },
        "policy": {"model": str(folder / "policy")},
        "sampler": "scripted",
        "source": {"name": "csr", "max_steps": 2, "max_response_tokens": 40},
        "similarity": "scripted",
        "trainer": "scripted",
        "evaluation": [
            {"name": "captions", "prompts": str(folder / "heldout.jsonl"), "images": images}
        ],
        "gates": None,
    }
    path = folder / "scripted.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path
