"""A whole run in a second: a recipe of scripted components with its images, prompts and policy."""

import contextlib
import json
import os
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import save_file

from flows import cli
from flows.config import Recipe
from flows.evaluating import evaluation_of
from flows.forms import EvaluateRequest, IterationRequest, RunRequest
from flows.iteration import run_stages
from flows.launch import do_iterations, prepared_run, recipe_of
from flows.rerun import opened_iteration
from flows.retry import with_retry
from flows.work import do_work

NUM_TRAIN = 12
NUM_HELD_OUT = 3


def write_image(path: Path, number: int) -> None:
    """An image that no other number gives."""
    Image.new("RGB", (8, 6), (number % 256, number // 256, 77)).save(path)


def write_prompts(
    path: Path, numbers: range, image_of: Callable[[int], str] = "{}.png".format
) -> None:
    records = [
        {"id": str(n), "image": image_of(n), "input": "Describe the image."} for n in numbers
    ]
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n")


def write_policy(path: Path) -> None:
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "scripted"}\n')
    save_file({"weight": np.arange(4, dtype=np.float32)}, path / "model.safetensors")


def write_recipe(folder: Path, **settings: Any) -> Path:
    """A recipe in `folder` with all that it names: two iterations of six prompts, three shards."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for number in (*range(NUM_TRAIN), *range(100, 100 + NUM_HELD_OUT)):
        write_image(images / f"{number}.png", number)
    write_prompts(folder / "train.jsonl", range(NUM_TRAIN))
    write_prompts(folder / "heldout.jsonl", range(100, 100 + NUM_HELD_OUT))
    if not (folder / "policy").exists():
        write_policy(folder / "policy")
    recipe = {
        "name": "scripted",
        "num_iterations": 2,
        "shard_size": 2,
        "num_statistics_prompts": 16,
        "data": {
            "prompts": str(folder / "train.jsonl"),
            "images": str(images),
            "num_prompts_per_iteration": 6,
        },
        "policy": {"model": str(folder / "policy")},
        "sampler": "scripted",
        "source": {
            "name": "csr",
            "num_candidates": 4,
            "keep_top": 2,
            "keep_bottom": 1,
            "max_steps": 4,
            "max_response_tokens": 40,
            "pair_filter": {"min_margin_quantile": 0.0, "max_length_difference": 1.0},
        },
        "similarity": "scripted",
        "trainer": "scripted",
        "evaluation": [
            {
                "name": "captions",
                "prompts": str(folder / "heldout.jsonl"),
                "images": str(images),
                "max_response_tokens": 40,
            }
        ],
        "gates": None,  # what a scripted policy says changes at random
    }
    path = folder / "scripted.yaml"
    path.write_text(yaml.safe_dump(recipe | settings, sort_keys=False))
    return path


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


class Csr:
    """The `csr` command in this process, its flow called plainly instead of through Prefect."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        monkeypatch.setattr(os, "environ", os.environ.copy())
        monkeypatch.setattr(os, "fsync", lambda file: None)  # slow, and no power fails here
        for name, module in without_prefect().items():
            monkeypatch.setitem(sys.modules, name, module)

    def __call__(self, *arguments: object) -> Answer:
        self._monkeypatch.setattr(sys, "argv", ["csr", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = self._capsys.readouterr()
        return Answer(int(stop.value.code or 0), captured.out, captured.err)


class Silent:
    """Stands in for capsys, which lives no longer than a test."""

    def readouterr(self) -> Answer:
        return Answer(0, "", "")


def finished_home(csr: Csr, folder: Path, run_id: str) -> Path:
    """A home with one finished run of two iterations, whose data lie beside it."""
    home = folder / "home"
    assert csr("run", write_recipe(folder / "data"), "--home", home, "--run-id", run_id).status == 0
    return home


def run_plainly(request: RunRequest) -> None:
    """What the flow of a run does, without Prefect."""
    _run_plainly(*recipe_of(request), request.home_path)


def evaluate_plainly(request: EvaluateRequest) -> None:
    """What the flow of an evaluation does, without Prefect."""
    _run_plainly(*evaluation_of(request), request.home_path)


def _run_plainly(recipe: Recipe, run_id: str, home: Path) -> None:
    with prepared_run(recipe, run_id, home) as run:

        def do(number: int) -> None:
            iterate_plainly(
                IterationRequest(
                    home=run.home, iteration_id=f"{run_id}/{number:02d}", attempt="current"
                )
            )

        do_iterations(run, do)


def iterate_plainly(request: IterationRequest) -> str:
    """What the flow of an iteration does, without Prefect."""
    with opened_iteration(request) as work:

        def do(stage: str, *shard: int) -> None:
            with_retry(
                lambda waves: do_work(work.home, work.attempt_id, stage, *shard, num_waves=waves)
            )

        run_stages(work.stages, work.num_shards, do)
        return work.attempt_id


def without_prefect() -> dict[str, types.ModuleType]:
    """Modules that stand in for `flows.run` and `flows.server`, by name."""
    run, server = types.ModuleType("flows.run"), types.ModuleType("flows.server")
    vars(run).update(
        csr_run=run_plainly, csr_iteration=iterate_plainly, csr_evaluate=evaluate_plainly
    )
    vars(server).update(prefect_server=contextlib.nullcontext)
    return {"flows.run": run, "flows.server": server}


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []
