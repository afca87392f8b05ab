"""Whole scripted runs whose engine stages are child processes: killed, hung, failed, stopped."""

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from csr.errors import EngineLost
from csr.samplers.scripted import ScriptedSampler
from flows import stage_process
from storage.run_store import RunStore
from storage.tables import content_sha256
from tests import faulty_worker
from tests.faulty_worker import MESSAGE
from tests.isolated_run import (
    IN_SHARD_1,
    RUN,
    SCRIPT,
    command,
    environment,
    fault_settings,
    start,
)
from tests.processes import all_gone, below, wait_until
from tests.scripted_run import Csr, write_recipe

WHOLE = "search 2"
HALVES = ("search 1", "search 1")
SECOND_TRY = ["start", *HALVES, WHOLE, "start", "start"]
"""What follows a lost engine: a new process samples the rest, then one trains, one evaluates."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("data"), num_iterations=1)


def children() -> list[psutil.Process]:
    """Processes below this one; multiprocessing leaves helpers of its own there for good."""
    return psutil.Process().children(recursive=True)


@pytest.fixture
def before() -> list[psutil.Process]:
    """The children that are there when a test begins."""
    return children()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    path.touch()
    return path


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch, csr: Csr, journal: Path) -> Any:
    def set_fault(act: str, times: int) -> None:
        settings = fault_settings(act, times, journal)
        monkeypatch.setattr(stage_process, "WORKER", faulty_worker.WORKER)
        monkeypatch.setitem(os.environ, "CSR_FAULT", settings)

    return set_fault


def contents(home: Path) -> dict[str, str]:
    attempt = RunStore(home).attempt(RUN, 1)
    tables = ("nodes", "responses", "pairs")
    made = {table: content_sha256(attempt.path / table, table) for table in tables}
    manifest = attempt.manifest.read()
    assert manifest.policy_out is not None
    return {
        **made,
        "policy": manifest.policy_out["sha256"],
        "metrics": json.dumps(manifest.metrics),
        "statistics": (attempt.path / "statistics.json").read_text(),
    }


@pytest.fixture(scope="module")
def expected(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the run makes in one process."""
    home = tmp_path_factory.mktemp("inline")
    command_line = [*map(str, command(recipe, home)), "--set", "isolation=inline"]
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command_line], env=environment(PLAIN="1")
    )
    assert process.returncode == 0
    assert not list(home.rglob("logs"))
    return contents(home)


def test_child_processes_make_the_same_tables(
    csr: Csr,
    recipe: Path,
    tmp_path: Path,
    expected: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    before: list[psutil.Process],
) -> None:
    home = tmp_path / "home"
    shown: dict[str, tuple[int, int]] = {}
    monkeypatch.setattr(
        stage_process,
        "stage_progress",
        lambda label: nullcontext(lambda *counts: shown.update({label: counts})),
    )
    answer = csr(*command(recipe, home))
    assert answer.status == 0, answer.err
    assert contents(home) == expected
    assert shown == {
        f"{RUN}/00.1 evaluate captions": (3, 3),
        f"{RUN}/01.1 measure": (16, 16),
        **{f"{RUN}/01.1 sample {shard}/3": (2, 2) for shard in (1, 2, 3)},
        f"{RUN}/01.1 train": (6, 6),
        f"{RUN}/01.1 evaluate captions": (3, 3),
    }
    logs = RunStore(home).attempt(RUN, 1).path / "logs"
    assert sorted(file.stem for file in logs.iterdir()) == [
        "evaluate",
        "gate",
        "measure",
        "sample",
        "train",
    ]
    assert f"{RUN}/01.1 sample shard 2: done" in answer.err  # logged there, told here
    assert children() == before

    RunStore(home).set_status(RUN, "suspended")  # so that every stage is looked at again
    monkeypatch.setattr("flows.work.stage_process", None)  # what is done needs none
    again = csr(*command(recipe, home))
    assert again.status == 0, again.err
    assert again.err.count("already done") == 10


@pytest.mark.parametrize("act", ["kill", "EngineLost"])
def test_a_lost_engine_is_tried_again_in_two_waves(
    csr: Csr,
    recipe: Path,
    tmp_path: Path,
    fault: Any,
    journal: Path,
    expected: dict[str, str],
    act: str,
) -> None:
    fault(act, times=1)
    answer = csr(*command(recipe, tmp_path / "home"))
    assert answer.status == 0, answer.err
    assert journal.read_text().split("\n")[:-1] == ["start", WHOLE, WHOLE, act, *SECOND_TRY]
    assert contents(tmp_path / "home") == expected
    told = {
        "kill": f"{RUN}/01.1 sample shard 1: its process was ended by SIGKILL.",
        "EngineLost": MESSAGE,
    }
    assert f"warning: Trying once more, in smaller batches. EngineLost: {told[act]}" in answer.err


def test_an_engine_lost_twice_fails_the_run_which_goes_on_later(
    csr: Csr,
    recipe: Path,
    tmp_path: Path,
    fault: Any,
    journal: Path,
    expected: dict[str, str],
    before: list[psutil.Process],
) -> None:
    home = tmp_path / "home"
    fault("kill", times=2)
    answer = csr(*command(recipe, home))
    assert answer.status == 1
    assert answer.err.count("failed: ") == 1
    failed = answer.err[answer.err.index("failed: ") :]
    assert "sample shard 1: its process was ended by SIGKILL. Most often memory" in failed
    assert "sample.log" in failed
    assert "Traceback" not in answer.err
    store = RunStore(home)
    assert store.run(RUN).status == "failed"
    manifest = store.attempt(RUN, 1).manifest.read()
    assert manifest.status == "failed"
    stages = {(s.stage, s.shard): s.status for s in manifest.stages}
    assert stages == {("measure", 0): "done", ("sample", 0): "done", ("sample", 1): "failed"}
    assert store.attempt(RUN, 0).manifest.read().status == "done"
    assert children() == before

    assert csr(*command(recipe, home)).status == 0
    assert contents(home) == expected
    lost = ["start", WHOLE, WHOLE, "kill", "start", "search 1", "kill"]
    resumed = ["start", WHOLE, WHOLE, "start", "start"]
    assert journal.read_text().split("\n")[:-1] == [*lost, *resumed]


@pytest.mark.slow
def test_a_stage_that_hangs_is_ended_and_tried_again(
    csr: Csr,
    recipe: Path,
    tmp_path: Path,
    fault: Any,
    journal: Path,
    expected: dict[str, str],
    before: list[psutil.Process],
) -> None:
    fault("hang", times=1)
    limit = ("--set", "stage_timeout_seconds=10")
    answer = csr(*command(recipe, tmp_path / "home", *limit))
    assert answer.status == 0, answer.err
    assert "sample shard 1 took too long and was ended." in answer.err
    assert journal.read_text().split("\n")[:-1] == ["start", WHOLE, WHOLE, "hang", *SECOND_TRY]
    assert contents(tmp_path / "home") == expected
    assert children() == before


@pytest.mark.parametrize("act", ["NumericalError", "AssertionError"])
def test_what_comes_again_is_not_tried_again(
    csr: Csr, recipe: Path, tmp_path: Path, fault: Any, journal: Path, act: str
) -> None:
    fault(act, times=2)
    answer = csr(*command(recipe, tmp_path / "home"))
    assert answer.status == 1
    assert journal.read_text().split("\n").count(act) == 1
    expected = {
        "NumericalError": f"failed: run {RUN}: {MESSAGE}",
        "AssertionError": f"failed: AssertionError: {MESSAGE} The whole traceback is in ",
    }
    assert expected[act] in answer.err
    log = RunStore(tmp_path / "home").attempt(RUN, 1).path / "logs" / "sample.log"
    assert "Traceback" in log.read_text()
    assert "Traceback" not in answer.err


def test_a_lost_engine_inline_is_tried_again_too(
    csr: Csr,
    recipe: Path,
    tmp_path: Path,
    expected: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample_steps = ScriptedSampler.sample_steps
    asked: list[set[str]] = []

    def faulty(self: Any, requests: Any, settings: Any) -> Any:
        prompts = {request.prompt.prompt_id for request in requests}
        if settings.num_candidates > 1 and IN_SHARD_1 in prompts:
            asked.append(prompts)
            if len(asked) == 1:
                raise EngineLost(MESSAGE)
        return sample_steps(self, requests, settings)

    monkeypatch.setattr(ScriptedSampler, "sample_steps", faulty)
    answer = csr("run", recipe, "--home", tmp_path / "home", "--run-id", RUN)
    assert answer.status == 0, answer.err
    assert f"warning: Trying once more, in smaller batches. EngineLost: {MESSAGE}" in answer.err
    assert asked[:2] == [{"2", "3"}, {"2"}]
    assert contents(tmp_path / "home") == expected


# ---------------------------------------------------------------- stopped from outside


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_a_stopped_run_leaves_no_process_and_goes_on_later(
    csr: Csr,
    recipe: Path,
    tmp_path: Path,
    journal: Path,
    expected: dict[str, str],
    number: signal.Signals,
    status: int,
) -> None:
    home = tmp_path / "home"
    process = start(recipe, home, journal, "hang", 1, PLAIN="1")
    wait_until(lambda: "hang" in journal.read_text())
    # Guard, stage process, and its own child.
    processes = below(process.pid, 3)
    os.killpg(process.pid, number)  # to the whole group, as a terminal does it
    err = process.communicate(timeout=60)[1]
    assert process.returncode == status, err
    wait_until(lambda: all_gone(processes))
    if number != signal.SIGKILL:
        assert err.splitlines()[-1] == "Interrupted. The same command resumes the run."
        assert RunStore(home).run(RUN).status == "suspended"
        assert RunStore(home).attempt(RUN, 1).manifest.read().status == "suspended"
    assert csr(*command(recipe, home)).status == 0
    assert contents(home) == expected


POOL = """
import sys
from concurrent.futures import ThreadPoolExecutor
from flows import stage_process
from flows.interrupts import Terminated, orderly_sigterm
from flows.work import do_work, engines_closed_at_end
from tests import faulty_worker
stage_process.WORKER = faulty_worker.WORKER
home = sys.argv[1]
try:
    with orderly_sigterm(), ThreadPoolExecutor(2) as pool, engines_closed_at_end():
        shards = [pool.submit(do_work, home, "mine/01.1", "sample", 1) for _ in range(2)]
        [shard.result() for shard in shards]
except Terminated:
    print([str(shard.exception()) for shard in shards])
"""


def test_stages_in_threads_end_with_the_main_thread(
    csr: Csr, recipe: Path, tmp_path: Path, fault: Any, journal: Path
) -> None:
    """A signal reaches the main thread alone, while a worker thread waits for the child."""
    home = tmp_path / "home"
    fault("kill", times=2)
    assert csr(*command(recipe, home)).status == 1
    settings = fault_settings("hang", 1, journal)
    process = subprocess.Popen(
        [sys.executable, "-c", POOL, str(home)],
        env=environment(CSR_FAULT=settings),
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: "hang" in journal.read_text())
    processes = below(process.pid, 3)
    process.terminate()
    assert process.communicate(timeout=60)[0] == (
        "['The run was stopped. The same command resumes it.', "
        "'The run was stopped. The same command resumes it.']\n"
    )
    assert all_gone(processes)
