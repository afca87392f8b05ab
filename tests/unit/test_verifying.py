"""`csr verify` names what is damaged, and the run's command makes that anew and no more."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.run_store import RunStore
from tests.scripted_run import Csr, finished_home

RUN = "mine"


@pytest.fixture
def home(csr: Csr, tmp_path: Path) -> Path:
    return finished_home(csr, tmp_path, RUN)


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 3)


ATTEMPT = "home/mine/iterations/01/attempts/1"


def test_a_healthy_run_has_nothing_wrong(csr: Csr, home: Path) -> None:
    answer = csr("verify", RUN, "--home", home, "--json")
    shape = answer.json()
    assert (answer.status, shape["problems"]) == (0, [])
    # prompts; 3 manifests; base: 6 files of evaluation; each iteration: statistics, 3 shards,
    # responses, pairs, 5 files of the policy, 6 of evaluation; base model; 12 images
    assert shape["num_files"] == 1 + 3 + 6 + 2 * 17 + 1 + 12
    assert "all as they were written" in csr("verify", RUN, "--home", home).out


@pytest.mark.parametrize(
    ("file", "damage", "where", "text"),
    [
        (f"{ATTEMPT}/nodes/00002.parquet", flip_a_byte, "mine/01.1 sample 2", "changed after"),
        (f"{ATTEMPT}/nodes/00002.parquet", cut, "mine/01.1 sample 2", "bytes, and had"),
        (f"{ATTEMPT}/pairs/00000.parquet", os.unlink, "mine/01.1 pair 0", "is missing"),
        (f"{ATTEMPT}/policy/model/model.safetensors", cut, "mine/01.1 train 0", "bytes, and had"),
        (f"{ATTEMPT}/statistics.json", flip_a_byte, "mine/01.1 measure 0", "changed after"),
        (f"{ATTEMPT}/evaluation/metrics.json", cut, "mine/01.1 evaluate 0", "bytes, and had"),
        (f"{ATTEMPT}/manifest.json", cut, "mine/01.1", "cannot be read as JSON"),
        ("home/mine/prompts.parquet", flip_a_byte, "prompts", "changed after"),
        ("data/policy/model.safetensors", flip_a_byte, "base model", "are not those"),
        ("data/policy", shutil.rmtree, "base model", "policy is not there any more"),
        ("data/images/3.png", flip_a_byte, "images", "3.png changed since the run began"),
        ("data/images/4.png", os.unlink, "images", "4.png cannot be read"),
    ],
)
def test_what_is_wrong_is_named(
    csr: Csr,
    home: Path,
    tmp_path: Path,
    file: str,
    damage: Callable[[Path], None],
    where: str,
    text: str,
) -> None:
    damage(tmp_path / file)
    answer = csr("verify", RUN, "--home", home, "--json")
    assert answer.status == 1
    (problem,) = answer.json()["problems"]
    assert problem["where"] == where
    assert text in problem["problem"]
    assert problem["mend"]
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("file", "stage", "shard"),
    [
        ("nodes/00001.parquet", "sample", 1),
        ("pairs/00000.parquet", "pair", 0),
        ("policy/model/model.safetensors", "train", 0),
        ("evaluation/captions.parquet", "evaluate", 0),
    ],
)
def test_the_same_command_makes_the_damaged_part_anew_alone(
    csr: Csr, home: Path, tmp_path: Path, file: str, stage: str, shard: int
) -> None:
    def finished() -> dict[tuple[int, str, int], str]:
        store = RunStore(home)
        return {
            (number, record.stage, record.shard): record.finished_at
            for number in store.iterations(RUN)
            for record in store.attempt(RUN, number).manifest.read().stages
        }

    before = finished()
    damaged = tmp_path / ATTEMPT / file
    intact = damaged.read_bytes()
    flip_a_byte(damaged)
    recipe = tmp_path / "data/scripted.yaml"
    assert csr("run", recipe, "--home", home, "--run-id", RUN).status == 0
    assert damaged.read_bytes() == intact
    after = finished()
    assert {key for key in before if after[key] != before[key]} == {(1, stage, shard)}
    assert csr("verify", RUN, "--home", home).status == 0


def test_a_home_that_was_moved_is_told_as_such(csr: Csr, home: Path, tmp_path: Path) -> None:
    moved = home.rename(tmp_path / "elsewhere")
    answer = csr("rerun", f"{RUN}/02", "--home", moved)
    assert answer.status == 2
    assert "is not in" in answer.err
    assert "a home stays where it began" in answer.err
    assert "Traceback" not in answer.err
