"""Pickles that run code lie in every folder that a run reads; none is ever opened."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli_batch import ROOT, environment
from tests.hostile.bait import lay, malicious, malicious_archive
from tests.hostile.inputs import Inputs
from tests.scripted_run import Csr

_watchers: list[list[tuple[str, str]]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watchers and event in ("open", "pickle.find_class"):
        _watchers[-1].append((event, str(arguments[0])))


sys.addaudithook(_audit)  # stays for good, so it looks only while a test watches


@contextmanager
def watched() -> Iterator[list[tuple[str, str]]]:
    """What is opened and unpickled in this process."""
    seen: list[tuple[str, str]] = []
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers.remove(seen)


@pytest.mark.parametrize("make", [malicious, malicious_archive])
def test_the_bait_bites_where_it_is_loaded(make: Any, tmp_path: Path) -> None:
    """Without this, the tests below could pass with a harmless bait."""
    marker = tmp_path / "owned"
    (tmp_path / "bait").write_bytes(make(marker))
    load = (
        "import torch; torch.load('bait', weights_only=False)"
        if make is malicious_archive
        else "import pickle; pickle.load(open('bait', 'rb'))"
    )
    subprocess.run([sys.executable, "-c", load], cwd=tmp_path, capture_output=True)
    assert marker.exists()


def folders_of(inputs: Inputs) -> list[Path]:
    """Everything that a run reads from, or looks into."""
    return [
        inputs.policy,
        inputs.images,
        inputs.folder,
        inputs.home,
        inputs.home / "run",
        inputs.home / "run/iterations/01/attempts/1",
        inputs.home / "run/iterations/01/attempts/1/policy/model",
        inputs.home / "run/iterations/01/attempts/1/pairs",
    ]


def test_no_command_opens_a_pickle(csr: Csr, inputs: Inputs, tmp_path: Path) -> None:
    marker = tmp_path / "owned"
    baits = [path for folder in folders_of(inputs)[:4] for path in lay(folder, marker)]
    with watched() as seen:
        assert csr(*inputs.command).status == 0
    baits += [path for folder in folders_of(inputs)[4:] for path in lay(folder, marker)]
    with watched() as later:
        for command in (
            ("ls", "run"),
            ("show", "run/01"),
            ("trace", "run", "3"),
            ("report", "run"),
            ("verify", "run"),
            ("diff", "run/01", "run/01"),
            ("rerun", "run/01"),
        ):
            csr(*command, "--home", inputs.home)
        assert csr(*inputs.command).status == 0
    opened = {path for event, path in [*seen, *later] if event == "open"}
    assert str(inputs.prompt_file) in opened, "the watch sees nothing"
    assert opened & set(map(str, baits)) == set()
    assert [found for found in [*seen, *later] if found[0] == "pickle.find_class"] == []
    assert not marker.exists()


WATCH = """
import os, sys
def audit(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        name = os.fsdecode(arguments[0])
        if os.path.basename(name) in NAMES or name.endswith("config.json"):
            os.write(LOG, (os.path.abspath(name) + "\\n").encode())
NAMES = set(os.environ["BAIT_NAMES"].split(os.pathsep))
LOG = os.open(os.environ["BAIT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.set_inheritable(LOG, False)
sys.addaudithook(audit)
"""


@pytest.mark.slow
def test_no_engine_opens_a_pickle(tmp_path: Path) -> None:
    """The same with transformers, CLIP and TRL, in every process that they start."""
    from tests.photographs import HELD_OUT, TRAIN, copy_photographs, write_jsonl
    from tests.tiny_models import make_llava, make_open_clip

    marker, log = tmp_path / "owned", tmp_path / "opened"
    folders = [make_llava(tmp_path / "llava"), make_open_clip(tmp_path / "clip")]
    copy_photographs(tmp_path / "images")
    write_jsonl(tmp_path / "train.jsonl", list(TRAIN)[:8])
    write_jsonl(tmp_path / "heldout.jsonl", HELD_OUT)
    images = str(tmp_path / "images")
    baits = [
        path
        for folder in (*folders, tmp_path / "images", tmp_path, tmp_path / "home")
        for path in lay(folder, marker)
    ]
    recipe = {
        "name": "bait",
        "num_iterations": 1,
        "num_statistics_prompts": 48,
        "data": {"prompts": str(tmp_path / "train.jsonl"), "images": images,
                 "num_prompts_per_iteration": 8},
        "policy": {"model": str(folders[0])},
        "sampler": "transformers",
        "source": {"name": "csr", "num_candidates": 3, "keep_top": 1, "keep_bottom": 1,
                   "max_steps": 2, "max_step_tokens": 12, "max_response_tokens": 24,
                   "pair_filter": {"min_margin_quantile": 0.0, "max_length_difference": 1.0}},
        "similarity": {"name": "clip", "model": str(folders[1])},
        "trainer": "dpo",
        "gates": None,
        "evaluation": [{"name": "captions", "prompts": str(tmp_path / "heldout.jsonl"),
                        "images": images, "max_response_tokens": 8}],
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    watch = tmp_path / "watch"
    watch.mkdir()
    (watch / "sitecustomize.py").write_text(WATCH)
    done = subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", "run",
         str(tmp_path / "recipe.yaml"), "--home", str(tmp_path / "home"), "--run-id", "run"],
        cwd=tmp_path, capture_output=True, text=True,
        env=environment(PYTHONPATH=f"{watch}:{ROOT}", BAIT_LOG=str(log), HF_HUB_OFFLINE="1",
                        BAIT_NAMES=":".join(path.name for path in baits)),
    )  # fmt: skip
    opened = set(log.read_text().splitlines())
    assert done.returncode == 0, done.stderr[-3000:]
    assert str(folders[0] / "config.json") in opened, "the watch sees nothing"
    assert opened & set(map(str, baits)) == set()
    assert not marker.exists()
