"""Two processes, one run: one works, and nothing is lost."""

import os
from functools import partial
from pathlib import Path

import pytest

from storage.manifest import IterationManifest, ManifestFile, StageRecord
from tests.faults.cases import Undisturbed, recovery_problems
from tests.faults.command import RUN, context, end, run, start
from tests.faults.hooks import wait_for, wait_in_training
from tests.scripted_run import files_below

NUM_WRITERS, NUM_RECORDS = 6, 8


def test_the_second_of_two_is_refused_by_name(peace: Undisturbed, tmp_path: Path) -> None:
    home, here, go = tmp_path / "home", tmp_path / "here", tmp_path / "go"
    first = start(
        peace.recipe, home, tmp_path / "first", before=partial(wait_in_training, here, go)
    )
    wait_for(here)
    second = run(peace.recipe, home, tmp_path / "second")
    go.touch()
    assert second.status == 2
    assert second.last_line.startswith(
        f"error: run {RUN} is being worked on by process {first.pid} on "
    )
    assert "Traceback" not in second.err
    assert recovery_problems(peace, home, end(first, tmp_path / "first")) == []


def test_two_started_together_make_one_result(peace: Undisturbed, tmp_path: Path) -> None:
    home, logs = tmp_path / "home", [tmp_path / f"log{number}" for number in range(3)]
    processes = [start(peace.recipe, home, log) for log in logs]
    ended = [end(process, log) for process, log in zip(processes, logs, strict=True)]
    winners = [each for each in ended if each.status == 0]
    assert winners
    for loser in ended:
        if loser.status != 0:
            assert loser.status == 2
            assert "is being worked on by process" in loser.last_line
    assert recovery_problems(peace, home, winners[0]) == []


def test_a_finished_run_delivered_again_changes_nothing(peace: Undisturbed, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert run(peace.recipe, home, tmp_path / "first").status == 0
    before = {path: path.read_bytes() for path in files_below(home)}
    again = run(peace.recipe, home, tmp_path / "again")
    assert again.status == 0
    assert "finished already, nothing to do" in again.err
    after = {path: path.read_bytes() for path in files_below(home)}
    changed = {p.name for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    assert changed == {".lock"}  # it names the process; the report is made again, and equal
    assert {event.split()[1] for event in again.events if event.startswith("call")} == {
        "run_stage"  # which only looks
    }
    assert any(event.startswith("os.rename mine/report.html") for event in again.events)


@pytest.mark.parametrize("owner", [os.getpid(), 2**22 + 1], ids=["alive", "dead"])
def test_a_lock_file_that_nobody_holds_blocks_nobody(
    peace: Undisturbed, tmp_path: Path, owner: int
) -> None:
    home = tmp_path / "home"
    (home / RUN).mkdir(parents=True)
    (home / RUN / ".lock").write_text(f"process {owner} on {os.uname().nodename} since ever")
    (home / RUN / ".run.json.lock").touch()
    ended = run(peace.recipe, home, tmp_path / "log")
    assert recovery_problems(peace, home, ended) == []


def _record(path: Path, writer: int) -> None:
    manifest = ManifestFile(path)
    for number in range(NUM_RECORDS):
        shard = writer * NUM_RECORDS + number
        (path.parent / f"{shard}.txt").write_text(str(shard))
        record = StageRecord(
            stage="sample", shard=shard, status="done", fingerprint=str(shard), seconds=0.0,
            started_at="2026-01-01T00:00:00+00:00", finished_at="2026-01-01T00:00:00+00:00",
        )  # fmt: skip
        manifest.record(record, files=[path.parent / f"{shard}.txt"])
        manifest.update(metrics={f"writer_{writer}": float(number)} | manifest.read().metrics)


def test_many_processes_record_at_once(peace: Undisturbed, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    ManifestFile(path).create(
        IterationManifest(
            run_id=RUN, iteration=1, attempt=1, config={}, code_version="1", seed=0,
            created_at="2026-01-01T00:00:00+00:00",
        )
    )  # fmt: skip
    writers = [context().Process(target=_record, args=(path, n)) for n in range(NUM_WRITERS)]
    for writer in writers:
        writer.start()
    num_reads = 0
    while any(writer.is_alive() for writer in writers):
        ManifestFile(path).read()  # DataError where it is torn
        num_reads += 1
    assert [writer.exitcode for writer in writers] == [0] * NUM_WRITERS
    assert num_reads > 0
    stages = ManifestFile(path).read().stages
    assert sorted(stage.shard for stage in stages) == list(range(NUM_WRITERS * NUM_RECORDS))
    for stage in stages:
        assert ManifestFile(path).is_done("sample", stage.shard, str(stage.shard))
    assert [file.name for file in files_below(tmp_path) if file.suffix == ".tmp"] == []
