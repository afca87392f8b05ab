"""Runs, iterations, attempts and the lock on a run."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from csr.errors import ConfigError, DataError, EnvironmentFault
from storage.attempt import IterationId, parse_iteration_id
from storage.run_store import RunStore

CONFIG = {"trainer": {"name": "dpo", "beta": 0.1}, "num_iterations": 3}


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


def start(store, run_id="tiny", config=CONFIG, seed=7):
    return store.create_run(run_id, recipe="tiny", config=config, seed=seed, code_version="0.1")


def test_a_run_is_created_once_and_resumed_when_equal(store):
    created = start(store)
    assert created == store.run("tiny")
    assert created.status == "running"
    assert start(store) == created
    assert [run.run_id for run in store.runs()] == ["tiny"]


def test_another_configuration_is_refused_and_the_keys_are_named(store):
    start(store)
    changed = {"trainer": {"name": "dpo", "beta": 0.2, "rank": 8}, "num_iterations": 3}
    with pytest.raises(ConfigError) as caught:
        start(store, config=changed)
    message = str(caught.value)
    assert "trainer.beta: 0.1 -> 0.2" in message
    assert "trainer.rank: unset -> 8" in message
    assert "num_iterations" not in message
    with pytest.raises(ConfigError, match="seed: 7 -> 8"):
        start(store, seed=8)


def test_tuples_in_a_configuration_resume_as_they_come_back(store):
    created = start(store, config={"sizes": (1, 2)})
    assert created.config == {"sizes": [1, 2]}
    assert start(store, config={"sizes": (1, 2)}) == created


def test_two_processes_that_start_the_same_run_get_the_same_record(store):
    records = []
    threads = [threading.Thread(target=lambda: records.append(start(store))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(records) == 6
    assert all(record == records[0] for record in records)


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "a b", "x" * 65, "/abs", "é"])
def test_a_name_that_could_leave_the_home_is_refused(store, name):
    with pytest.raises(ConfigError, match="cannot name a run"):
        start(store, run_id=name)


def test_an_unknown_run_names_the_nearest(store):
    with pytest.raises(DataError, match="It has no run at all"):
        store.run("tiny")
    start(store)
    with pytest.raises(DataError, match="Did you mean 'tiny'"):
        store.run("tinny")


def test_runs_are_listed_newest_last(store, monkeypatch):
    assert store.runs() == []
    for day, name in [(2, "b"), (3, "a"), (1, "c")]:
        monkeypatch.setattr("storage.run_store.utc_now", lambda day=day: f"2030-01-0{day}")
        start(store, run_id=name)
    assert [run.run_id for run in store.runs()] == ["c", "b", "a"]


def test_status_changes_and_nothing_else(store):
    created = start(store)
    store.set_status("tiny", "done")
    assert store.run("tiny") == created.model_copy(update={"status": "done"})


def test_unknown_run_version_is_refused(store):
    start(store)
    path = store.run_path("tiny") / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run_version": 9}))
    with pytest.raises(DataError, match="run version 9, and this release reads version 1"):
        store.run("tiny")


def test_attempts_count_from_one_and_the_first_is_current(store):
    start(store)
    assert store.current_attempt("tiny", 2) is None
    first = store.new_attempt("tiny", 2)
    second = store.new_attempt("tiny", 2, config=CONFIG | {"num_iterations": 1}, seed=8)
    assert first.path == store.home / "tiny" / "iterations" / "02" / "attempts" / "1"
    assert first.nodes == first.path / "nodes"
    assert [first.manifest.read().seed, second.manifest.read().seed] == [7, 8]
    assert first.manifest.read().config == CONFIG
    assert second.manifest.read().config["num_iterations"] == 1
    assert store.attempts("tiny", 2) == [1, 2]
    assert store.attempt("tiny", 2) == first
    assert store.attempt("tiny", 2, 2) == second
    store.set_current("tiny", 2, 2)
    assert store.attempt("tiny", 2) == second
    assert str(second.id) == "tiny/02.2"


def test_iterations_are_those_with_an_attempt(store):
    start(store)
    assert store.iterations("tiny") == []
    for iteration in (2, 0, 1, 10):
        store.new_attempt("tiny", iteration)
    assert store.iterations("tiny") == [0, 1, 2, 10]


def test_attempts_are_sorted_as_numbers(store):
    start(store)
    for _ in range(11):
        store.new_attempt("tiny", 1)
    assert store.attempts("tiny", 1) == list(range(1, 12))


def test_an_unknown_attempt_says_which_there_are(store):
    start(store)
    store.new_attempt("tiny", 1)
    with pytest.raises(DataError, match=r"there is no tiny/01\.5.* the attempts \[1\]"):
        store.attempt("tiny", 1, 5)
    with pytest.raises(DataError, match=r"there is no tiny/03\. The run has the iterations \[1\]"):
        store.attempt("tiny", 3)


def test_two_reruns_at_once_get_two_attempts(store):
    start(store)
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(store.new_attempt("tiny", 1).id.attempt))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [1, 2, 3, 4, 5, 6]


def test_iteration_ids():
    assert parse_iteration_id("tiny-4f2a/02") == IterationId("tiny-4f2a", 2)
    assert parse_iteration_id("tiny-4f2a/02.1") == IterationId("tiny-4f2a", 2, 1)
    assert str(parse_iteration_id("a.b/2.10")) == "a.b/02.10"
    for wrong in ("tiny", "tiny/", "tiny/x", "tiny/02.", "../02", "tiny/02.1/x", "/02", "tiny/-1"):
        with pytest.raises(ConfigError, match="is not an iteration ID"):
            parse_iteration_id(wrong)


def test_a_run_is_locked_for_others_while_one_works_on_it(store):
    """The other is a real process; its end, even by SIGKILL, frees the run."""
    start(store)
    program = (
        "import sys, time, pathlib\n"
        "from storage.run_store import RunStore\n"
        "with RunStore(pathlib.Path(sys.argv[1])).lock('tiny'):\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, str(store.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "locked\n"
            with (
                pytest.raises(EnvironmentFault, match=f"worked on by process {other.pid} on"),
                store.lock("tiny"),
            ):
                pass
        finally:
            other.send_signal(signal.SIGKILL)
    with store.lock("tiny"):
        assert f"process {os.getpid()} " in (store.run_path("tiny") / ".lock").read_text()


def test_the_lock_is_free_afterwards_and_sweeps_half_written_files(store):
    start(store)
    half = store.new_attempt("tiny", 1).path / "nodes" / ".00000.parquet.1.tmp"
    half.parent.mkdir()
    half.write_bytes(b"half")
    for _ in range(2):
        with store.lock("tiny"):
            assert not half.exists()
    with pytest.raises(DataError, match="there is no run"), store.lock("other"):
        pass


def test_a_disk_that_closes_before_the_sweep_is_told_and_leaves_no_lock(store, monkeypatch):
    def read_only(directory):
        raise OSError(errno.EROFS, "Read-only file system")

    start(store)
    with monkeypatch.context() as patch:
        patch.setattr("storage.run_lock.remove_temporaries", read_only)
        with pytest.raises(EnvironmentFault, match="read-only"), store.lock("tiny"):
            pass
    assert not store.is_locked("tiny")


def test_a_home_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="a part of the path is a file"):
        start(RunStore(tmp_path / "file"))
