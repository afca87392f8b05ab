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
from flows.context import open_iteration
from flows.iteration import run_iteration
from flows.retry import with_retry
from flows.work import do_work, engines_closed_at_end

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
        for name, stand_in in (("run", run_plainly), ("server", contextlib.nullcontext)):
            module = types.ModuleType(f"flows.{name}")
            setattr(module, {"run": "run_flow", "server": "prefect_server"}[name], stand_in)
            monkeypatch.setitem(sys.modules, f"flows.{name}", module)

    def __call__(self, *arguments: object) -> Answer:
        self._monkeypatch.setattr(sys, "argv", ["csr", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = self._capsys.readouterr()
        return Answer(int(stop.value.code or 0), captured.out, captured.err)


def run_plainly(home: str, run_id: str, num_iterations: int) -> None:
    """What the flow does, without Prefect."""
    with engines_closed_at_end():
        for number in range(num_iterations + 1):
            context = open_iteration(home, run_id, number)

            def do(stage: str, *shard: int, attempt: str = str(context.attempt.id)) -> None:
                with_retry(lambda waves: do_work(home, attempt, stage, *shard, num_waves=waves))

            run_iteration(number, context.num_shards, do)


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []
