"""Checkpoints as files: whole or absent, this training's or none, and exact."""

import errno
import json
import logging
import os
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from csr.errors import DataError, EnvironmentFault
from csr.trainers import _checkpoints
from csr.trainers._checkpoints import Checkpoints, training_sha256
from csr.trainers._training_state import rng_state, set_rng_state
from csr.trainers._watch import TrainingWatch
from csr.trainers.dpo import Config
from csr.types import PolicyRef

POLICY = PolicyRef(name="base", model_path="/model", sha256="aa", iteration=0)


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(directory=tmp_path / "kept", training_sha256="mine")


def write(folder):
    (folder / "weights").write_text("1 2 3")
    (folder / "state").write_text("4")


def names(checkpoints):
    return sorted(path.name for path in checkpoints.directory.iterdir())


def test_a_training_is_named_by_all_that_decides_its_weights(tmp_path, monkeypatch):
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    (pairs / "00000.parquet").write_bytes(b"one")

    def name(policy=POLICY, config=None, seed=1, device="cpu"):
        return training_sha256(policy, pairs, config or Config(), seed, device)

    first = name()
    assert name(replace(POLICY, name="copy", model_path="/elsewhere")) == first
    others = [
        name(replace(POLICY, sha256="bb")),
        name(config=Config(beta=0.2)),
        name(seed=2),
        name(device="cuda"),
    ]
    (pairs / "00001.parquet").write_bytes(b"two")
    others.append(name())
    monkeypatch.setattr(_checkpoints.importlib.metadata, "version", lambda package: "9")
    others.append(name())
    assert len({first, *others}) == 7


def test_a_pairs_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.parquet cannot be read as a table to train on"):
        training_sha256(POLICY, tmp_path / "none.parquet", Config(), 1, "cpu")


def test_the_newest_two_are_kept(checkpoints):
    assert checkpoints.latest() is None
    for step in (50, 100, 1000):
        checkpoints.publish(step, write)
    assert names(checkpoints) == ["step-00000100", "step-00001000"]
    assert checkpoints.latest() == checkpoints.directory / "step-00001000"
    checkpoints.remove_unusable()
    assert names(checkpoints) == ["step-00000100", "step-00001000"]
    seal = json.loads((checkpoints.latest() / "checkpoint.json").read_text())
    assert seal["training_sha256"] == "mine"
    assert seal["files"].keys() == {"weights", "state"}


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(checkpoints, monkeypatch):
    events, rename, fsync = [], os.rename, os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "rename", lambda a, b: (events.append("rename"), rename(a, b)))
    checkpoints.publish(1, write)
    # Three files and their folder, the name, the folder that holds the name.
    assert events == ["fsync"] * 4 + ["rename", "fsync"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, "No space left on device"), EnvironmentFault),
    ],
)
def test_a_write_that_fails_leaves_the_earlier_checkpoints_alone(checkpoints, error, raised):
    checkpoints.publish(1, write)
    checkpoints.publish(2, write)

    def fail(folder):
        write(folder)
        raise error

    with pytest.raises(raised):
        checkpoints.publish(3, fail)
    assert names(checkpoints) == ["step-00000001", "step-00000002"]
    checkpoints.remove_unusable()
    assert names(checkpoints) == ["step-00000001", "step-00000002"]


def test_a_half_written_checkpoint_is_named_and_removed(checkpoints, caplog):
    checkpoints.publish(1, write)
    half = checkpoints.directory / ".step-00000002.0af3.tmp"
    half.mkdir()
    write(half)
    checkpoints.remove_unusable()
    assert names(checkpoints) == ["step-00000001"]
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert f"{half} is skipped and removed: it is half-written" in record.message


def test_another_trainings_checkpoints_are_removed_without_a_warning(checkpoints, caplog):
    replace(checkpoints, training_sha256="another").publish(2, write)
    checkpoints.publish(1, write)
    checkpoints.remove_unusable()
    assert names(checkpoints) == ["step-00000001"]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"training_sha256": "mi'])
def test_a_checkpoint_whose_seal_is_broken_is_damaged(checkpoints, caplog, content):
    checkpoints.publish(1, write)
    (checkpoints.latest() / "checkpoint.json").write_text(content)
    checkpoints.remove_unusable()
    assert checkpoints.latest() is None
    assert "checkpoint.json is missing or damaged" in caplog.text


def test_every_random_generator_goes_on_where_it_stood():
    """The second draw of a normal pair is kept beside the state: it must come back too."""
    random.gauss(0, 1)
    np.random.standard_normal()
    torch.rand(3)
    saved = json.loads(json.dumps(rng_state()))

    def draw():
        return (
            [random.gauss(0, 1), random.random()],
            np.random.standard_normal(3).tolist(),
            torch.rand(3).tolist(),
        )

    first, second = draw(), draw()
    set_rng_state(saved)
    assert draw() == first
    assert first != second


def test_the_watch_goes_on_with_history_progress_and_time():
    calls = []
    watch = TrainingWatch([], 100, lambda *at: calls.append(at))
    state = {"history": [{"step": 1.0, "loss": 0.7}], "num_seen": 60, "seconds": 1000.0}
    watch.restore(json.loads(json.dumps(state)))
    assert watch.history == [{"step": 1.0, "loss": 0.7}]
    assert calls == [(60, 100)]
    assert 1000.0 <= watch.seconds < 2000.0
    assert {**watch.state(), "seconds": 1000.0} == state
