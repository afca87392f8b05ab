"""Each tracker with its own package: what it was told is read back the way its users read it."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csr.config import ComponentConfig
from csr.errors import EnvironmentFault
from csr.trackers import tensorboard, trackio, wandb
from csr.tracking import Point, Track

OWN = Track(run_id="tiny-4f2a", settings={"seed": 3})
TRAINING = Track(run_id="tiny-4f2a", part="02.1-training", axis="optimizer_step")
FIRST = Point(number=1, figures={"evaluate/chair_s": 0.25, "evaluate/recall": 0.5})
SECOND = Point(number=2, figures={"evaluate/chair_s": 0.125})
STEPS = [Point(number=n, figures={"train/loss": 1.0 / n}) for n in (1, 2, 4)]


def log_in_two_sittings(module: Any, config: ComponentConfig, home: Path) -> None:
    """What a run that was interrupted does: the second process begins with all from the start."""
    first = module.build(config, home=home, run_id="tiny-4f2a")
    assert first.log(OWN, [FIRST]) == 2
    assert first.log(TRAINING, STEPS[:2]) == 2
    first.close()
    second = module.build(config, home=home, run_id="tiny-4f2a")
    assert second.log(OWN, [FIRST]) == 0
    assert second.log(OWN, [FIRST, SECOND]) == 1
    assert second.log(TRAINING, STEPS) == 1
    second.close()


# ---------------------------------------------------------------- TensorBoard


def test_tensorboard_has_every_point_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_in_two_sittings(tensorboard, tensorboard.Config(), tmp_path)

    def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
        events = EventAccumulator(str(folder))
        events.Reload()
        return [(each.step, each.value) for each in events.Scalars(tag)]

    folder = tmp_path / "tiny-4f2a" / "tensorboard"
    assert scalars(folder, "evaluate/chair_s") == [(1, 0.25), (2, 0.125)]
    assert scalars(folder, "evaluate/recall") == [(1, 0.5)]
    assert scalars(folder / "02.1-training", "train/loss") == [(1, 1.0), (2, 0.5), (4, 0.25)]


def test_tensorboard_keeps_more_points_than_it_draws(tmp_path: Path) -> None:
    """By itself TensorBoard reads a sample of 10,000 points, and the rest would be told again."""
    points = [Point(number=n, figures={"train/loss": 0.5}) for n in range(10_050)]
    tracker = tensorboard.build(tensorboard.Config(), home=tmp_path, run_id="tiny-4f2a")
    assert tracker.log(TRAINING, points) == 10_050
    assert tracker.log(TRAINING, points) == 0


# ---------------------------------------------------------------- trackio


@pytest.fixture
def trackio_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """trackio reads its variables when it is imported."""
    for name in trackio.REMOTE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "figures"))
    forget("trackio")
    yield tmp_path / "figures"
    forget("trackio")


def forget(package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


def trackio_values(folder: Path, run: str, metric: str) -> list[tuple[int, float]]:
    """As trackio's own command tells them."""
    command = [Path(sys.executable).with_name("trackio"), "get", "metric", "--json"]
    which = ["--project", "mine", "--run", run, "--metric", metric]
    env = {**os.environ, "TRACKIO_DIR": str(folder)}
    answer = subprocess.run([*command, *which], env=env, capture_output=True, text=True, check=True)
    return [(each["step"], each["value"]) for each in json.loads(answer.stdout)["values"]]


def test_trackio_has_every_point_once(trackio_folder: Path, tmp_path: Path) -> None:
    log_in_two_sittings(trackio, trackio.Config(project="mine"), tmp_path)

    def values(run: str, metric: str) -> list[tuple[int, float]]:
        return trackio_values(trackio_folder, run, metric)

    assert values("tiny-4f2a", "evaluate/chair_s") == [(1, 0.25), (2, 0.125)]
    assert values("tiny-4f2a-02.1-training", "train/loss") == [(1, 1.0), (2, 0.5), (4, 0.25)]


def test_trackio_lies_below_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRACKIO_DIR", "")  # put back afterwards
    monkeypatch.delenv("TRACKIO_DIR")
    tracker = trackio.build(trackio.Config(), home=tmp_path, run_id="tiny-4f2a")
    assert tracker.shown_by == f"TRACKIO_DIR={tmp_path}/.trackio trackio show --project csr"
    assert os.environ["TRACKIO_DIR"] == f"{tmp_path}/.trackio"


@pytest.mark.parametrize("name", trackio.REMOTE)
def test_trackio_writes_to_this_machine_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv(name, "somewhere")
    with pytest.raises(EnvironmentFault, match=f"{name} is set"):
        trackio.build(trackio.Config(), home=tmp_path, run_id="tiny-4f2a")


# ---------------------------------------------------------------- wandb

BLOCK_BYTES, FILE_HEADER_BYTES, RECORD_HEADER = 32768, 7, struct.Struct("<IHB")
LAST_PIECES = (1, 4)
"""Types of a piece that ends a record: whole, or the last of several."""


def records(path: Path) -> Iterator[Any]:
    """The records of wandb's offline file: a LevelDB log of its own protobuf messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, message = path.read_bytes(), FILE_HEADER_BYTES, b""
    while at + RECORD_HEADER.size <= len(content):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < RECORD_HEADER.size:
            at += left
            continue
        _, size, kind = RECORD_HEADER.unpack_from(content, at)
        at += RECORD_HEADER.size
        message += content[at : at + size]
        at += size
        if kind in LAST_PIECES:
            record = Record()
            record.ParseFromString(message)
            yield record
            message = b""


def wandb_history(folder: Path, track_id: str) -> list[dict[str, Any]]:
    """The rows of a track, over all of its files in the order in which they began."""
    files = sorted(folder.glob(f"wandb/offline-run-*/run-{track_id}.wandb"))
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row}
        for file in files
        for record in records(file)
        if (row := record.history.item)
    ]
    return [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]


def test_wandb_offline_has_every_point_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    log_in_two_sittings(wandb, wandb.Config(project="mine", entity="us"), tmp_path)
    folder = tmp_path / "tiny-4f2a"
    assert wandb_history(folder, "tiny-4f2a") == [
        {"iteration": 1, "evaluate/chair_s": 0.25, "evaluate/recall": 0.5},
        {"iteration": 2, "evaluate/chair_s": 0.125},
    ]
    assert wandb_history(folder, "tiny-4f2a-02.1-training") == [
        {"optimizer_step": n, "train/loss": 1.0 / n} for n in (1, 2, 4)
    ]
    [first, _] = sorted(folder.glob("wandb/offline-run-*/run-tiny-4f2a.wandb"))
    [run] = [record.run for record in records(first) if record.run.run_id]
    assert (run.run_id, run.run_group, run.project, run.entity) == (
        "tiny-4f2a", "tiny-4f2a", "mine", "us",
    )  # fmt: skip
    assert {each.key: each.value_json for each in run.config.update}["seed"] == "3"


def test_wandb_in_another_project_begins_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    one = wandb.build(wandb.Config(), home=tmp_path, run_id="tiny-4f2a")
    assert one.log(OWN, [FIRST]) == 2
    one.close()
    other = wandb.build(wandb.Config(project="other"), home=tmp_path, run_id="tiny-4f2a")
    assert other.log(OWN, [FIRST]) == 2
    other.close()
    again = wandb.build(wandb.Config(), home=tmp_path, run_id="tiny-4f2a")
    assert again.log(OWN, [FIRST]) == 0


def test_wandb_knows_what_a_note_of_one_project_says(tmp_path: Path) -> None:
    note = tmp_path / "tiny-4f2a" / "wandb" / "logged.json"
    note.parent.mkdir(parents=True)
    tracks = {"tiny-4f2a": {"evaluate/chair_s": [1], "evaluate/recall": [1]}}
    note.write_text(json.dumps({"project": "/csr", "tracks": tracks}))
    tracker = wandb.build(wandb.Config(), home=tmp_path, run_id="tiny-4f2a")
    assert tracker.log(OWN, [FIRST]) == 0


def test_wandb_without_a_key_is_told_before_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(EnvironmentFault, match="WANDB_API_KEY"):
        wandb.check(wandb.Config())
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    wandb.check(wandb.Config())
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.check(wandb.Config())
