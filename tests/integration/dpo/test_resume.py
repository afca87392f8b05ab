"""Training that was stopped goes on from its checkpoints and gives the same weights, bit for bit.

That holds on a CPU, where every operation here is deterministic.
"""

import logging
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from csr.errors import EngineLost, EnvironmentFault, NumericalError
from csr.trainers import _adapter_trainer
from tests.dpo_runs import RESUMABLE, SEED, train

ROOT = Path(__file__).resolve().parents[3]
TOTAL = 18
KILLED_AFTER = {"8": 0, "12": 2, "14": 3, "18": 5, "saving": 3, "merging": 6}
"""Place of death -> the step of the newest whole checkpoint."""


def weights(result):
    return {
        file.relative_to(folder.parent): file.read_bytes()
        for folder in (result.model_path, result.adapter_path)
        for file in sorted(folder.iterdir())
    }


def assert_same(result, expected):
    assert weights(result) == weights(expected)
    assert result.history == expected.history
    figures, others = dict(result.metrics), dict(expected.metrics)
    del figures["seconds"], others["seconds"]
    assert figures == others


def resume(llava, folder, **changes):
    """The result, and the first progress that was reported: where training went on."""
    calls = []
    result = train(
        llava[0],
        llava[3],
        folder / "out",
        config=RESUMABLE,
        progress=lambda *at: calls.append(at),
        keep_in=folder / "kept",
        **changes,
    )
    assert calls[-1] == (TOTAL, TOTAL)
    return result, calls[0]


def train_until(llava, folder, num_pairs, error):
    def stop(done, total):
        if done == num_pairs:
            raise error

    train(
        llava[0], llava[3], folder / "out",
        config=RESUMABLE, progress=stop, keep_in=folder / "kept",
    )  # fmt: skip


def begun_at(step):
    """First progress when training goes on after `step`: 6 reference batches, 2 a step."""
    return (6 + 2 * step, TOTAL) if step else (1, TOTAL)


def kept(folder):
    return sorted(path.name for path in (folder / "kept").iterdir())


@pytest.fixture(scope="module")
def undisturbed(llava, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    return train(llava[0], llava[3], out, config=RESUMABLE)


@pytest.fixture(scope="module")
def killed(llava, tmp_path_factory):
    root = tmp_path_factory.mktemp("killed")
    subprocess.run(
        [sys.executable, "-m", "tests.killed_training", llava[0], llava[3], root, *KILLED_AFTER],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return root


@pytest.fixture(scope="module")
def interrupted(llava, tmp_path_factory):
    root = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(KeyboardInterrupt):
        train_until(llava, root, 14, KeyboardInterrupt())
    return root


@pytest.fixture
def stopped(interrupted, tmp_path):
    """Checkpoints of the steps 2 and 3."""
    folder = Path(shutil.copytree(interrupted, tmp_path / "stopped"))
    assert kept(folder) == ["step-00000002", "step-00000003"]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("place", "step"), KILLED_AFTER.items())
def test_a_killed_training_goes_on_and_ends_as_an_undisturbed_one(
    llava, killed, undisturbed, tmp_path, place, step
):
    folder = Path(shutil.copytree(killed / place, tmp_path / "killed"))
    result, first = resume(llava, folder)
    assert first == begun_at(step)
    assert_same(result, undisturbed)
    assert kept(folder) == ["step-00000005", "step-00000006"]
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["adapter", "model"]


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "problem"),
    [
        ("adapter.safetensors", truncate, "adapter.safetensors is not as it was written"),
        ("optimizer.safetensors", flip, "optimizer.safetensors is not as it was written"),
        ("state.json", Path.unlink, "state.json is missing"),
        ("checkpoint.json", truncate, "checkpoint.json is missing or damaged"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    llava, undisturbed, stopped, caplog, name, damage, problem
):
    damage(stopped / "kept" / "step-00000003" / name)
    result, first = resume(llava, stopped)
    assert first == begun_at(2)
    assert_same(result, undisturbed)
    [record] = [r for r in caplog.records if r.name.startswith("csr")]
    assert record.levelno == logging.WARNING
    assert "step-00000003 is skipped" in record.message
    assert problem in record.message


def test_what_is_done_is_not_computed_again(llava, stopped, monkeypatch):
    """Images that the vision tower encodes: one a pair, in the steps 4 to 6 alone."""
    load, encoded = _adapter_trainer.load_policy, []

    def counting(*args):
        model = load(*args)
        tower = model.model.vision_tower
        tower.register_forward_pre_hook(lambda module, args: encoded.append(len(args[0])))
        return model

    monkeypatch.setattr(_adapter_trainer, "load_policy", counting)
    resume(llava, stopped)
    assert sum(encoded) == 6


def test_training_starts_over_where_every_checkpoint_is_damaged(
    llava, undisturbed, stopped, caplog
):
    for folder in (stopped / "kept").iterdir():
        truncate(folder / "adapter.safetensors")
    result, first = resume(llava, stopped)
    assert first == begun_at(0)
    assert_same(result, undisturbed)
    assert [r.levelname for r in caplog.records if r.name.startswith("csr")] == ["WARNING"] * 2


def test_a_checkpoint_of_another_training_is_not_used(llava, undisturbed, stopped):
    result, first = resume(llava, stopped, seed=SEED + 1)
    assert first == begun_at(0)
    fresh = train(llava[0], llava[3], stopped / "fresh", config=RESUMABLE, seed=SEED + 1)
    assert_same(result, fresh)
    assert weights(result) != weights(undisturbed)


def test_no_checkpoint_is_made_where_none_is_asked_for(llava, tmp_path):
    none = RESUMABLE.model_copy(update={"checkpoint_every_num_steps": 0})
    train(llava[0], llava[3], tmp_path / "out", config=none, keep_in=tmp_path / "kept")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_said_plainly_and_earlier_checkpoints_stay(
    llava, undisturbed, tmp_path, monkeypatch
):
    import safetensors.torch

    save = safetensors.torch.save_file

    def full(tensors, file, **named):
        if ".step-00000003" in str(file) and "optimizer" in str(file):
            raise SafetensorError(
                "Error while serializing: I/O error: No space left on device (os error 28)"
            )
        save(tensors, file, **named)

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", full)
        with pytest.raises(EnvironmentFault, match=r"step-00000003: the disk is full"):
            resume(llava, tmp_path)
    assert kept(tmp_path) == ["step-00000001", "step-00000002"]
    assert not (tmp_path / "out").exists()
    result, first = resume(llava, tmp_path)
    assert first == begun_at(2)
    assert_same(result, undisturbed)


@pytest.mark.parametrize(
    ("learning_rate", "message"),
    [
        (1e30, r"The loss is nan in step 2"),
        (1e39, r"After step 1 the adapter holds values that are not finite"),
    ],
)
def test_numbers_that_are_not_finite_leave_no_checkpoint(llava, tmp_path, learning_rate, message):
    wild = RESUMABLE.model_copy(update={"learning_rate": learning_rate})
    with pytest.raises(NumericalError, match=message):
        train(llava[0], llava[3], tmp_path / "out", config=wild, keep_in=tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []


def test_memory_that_ran_out_is_told_and_the_checkpoints_stay(llava, tmp_path):
    with pytest.raises(EngineLost, match="no more"):
        train_until(llava, tmp_path, 11, torch.OutOfMemoryError("no more"))
    assert kept(tmp_path) == ["step-00000001", "step-00000002"]


def is_pickle(file):
    """By content: a pickle of protocol 2 to 5, or torch's zip with one inside."""
    if zipfile.is_zipfile(file):
        return any(name.endswith("data.pkl") for name in zipfile.ZipFile(file).namelist())
    start = file.read_bytes()[:2]
    return start[:1] == b"\x80" and b"\x02" <= start[1:] <= b"\x05"


def test_no_file_is_ever_a_pickle(llava, tmp_path):
    """Looked at after every batch, when the newest checkpoint is there."""
    seen = set()

    def look(done, total):
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert [file for file in files if is_pickle(file)] == []
        seen.update(file.name for file in files)

    train(
        llava[0], llava[3], tmp_path / "out",
        config=RESUMABLE, progress=look, keep_in=tmp_path / "kept",
    )  # fmt: skip
    look(TOTAL, TOTAL)
    ours = {"adapter.safetensors", "optimizer.safetensors", "state.json", "trainer_state.json"}
    assert ours | {"checkpoint.json", "adapter_model.safetensors", "model.safetensors"} <= seen


def test_the_pickle_check_sees_both_kinds(tmp_path):
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    (tmp_path / "plain").write_bytes(b"\x80\x04\x95")
    (tmp_path / "text").write_text("{}")
    assert [is_pickle(tmp_path / name) for name in ("zip", "plain", "text")] == [True, True, False]


@pytest.mark.slow
def test_two_processes_go_on_from_a_checkpoint_as_if_undisturbed(llava, tmp_path):
    """The first run is undisturbed; its checkpoint of step 4, of 6, is what the second has."""
    two = RESUMABLE.model_copy(
        update={
            "num_processes": 2, "gradient_accumulation_steps": 1, "checkpoint_every_num_steps": 2,
        }
    )  # fmt: skip
    results, first = [], []
    for name in ("whole", "resumed"):
        calls = []
        results.append(
            train(
                llava[0], llava[3], tmp_path / name, config=two,
                progress=lambda *at, calls=calls: calls.append(at), keep_in=tmp_path / "kept",
            )
        )  # fmt: skip
        first.append(calls[0])
        assert kept(tmp_path) == ["step-00000004", "step-00000006"]
        shutil.rmtree(tmp_path / "kept" / "step-00000006")
    assert first == [(2, TOTAL), (14, TOTAL)]
    assert_same(results[1], results[0])
