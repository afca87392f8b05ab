"""Whatever becomes of a command or of who asked for it, nothing of it stays alive."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.supervise import guarded
from tests.processes import all_gone, below, wait_until

ROOT = Path(__file__).parents[2]
QUIET = "exec sleep 600"
STUBBORN = "trap '' TERM; sleep 600 & wait; sleep 600"
FAMILY = "sleep 600 & (setsid sleep 600 &) ; (setsid sh -c 'sleep 600 & wait' &) ; wait"
"""A child, an orphan with a session of its own, and one with a child; all below the guard."""
PARENT = """
import subprocess, sys, time
from flows.supervise import guarded
subprocess.Popen(guarded(["sh", "-c", sys.argv[1]], grace_seconds=0.5))
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def start(script: str) -> Any:
    return subprocess.Popen(guarded(["sh", "-c", script], grace_seconds=0.5))


@pytest.mark.parametrize(("script", "num_processes"), [(QUIET, 1), (STUBBORN, 2), (FAMILY, 5)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_guard_that_is_told_to_end_leaves_nothing(
    script: str, num_processes: int, number: signal.Signals
) -> None:
    guard = start(script)
    processes = below(guard.pid, num_processes)
    guard.send_signal(number)
    assert guard.wait(60) in (128 + signal.SIGTERM, 128 + signal.SIGKILL)
    assert all_gone(processes)


@pytest.mark.parametrize(("script", "num_processes"), [(QUIET, 1), (STUBBORN, 2), (FAMILY, 5)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_parent_that_dies_leaves_nothing(
    script: str, num_processes: int, number: signal.Signals
) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, script])
    processes = below(parent.pid, 1 + num_processes)
    parent.send_signal(number)
    parent.wait()
    wait_until(lambda: all_gone(processes))


def test_a_guard_that_is_killed_takes_its_command_along() -> None:
    guard = start(QUIET)
    processes = below(guard.pid, 1)
    guard.kill()
    guard.wait()
    wait_until(lambda: all_gone(processes))


@pytest.mark.parametrize(
    ("script", "status"), [("true", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_the_status_is_the_commands(script: str, status: int) -> None:
    assert start(script).wait(60) == status


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    left = f"(setsid sh -c 'echo $$ > {file}.new; mv {file}.new {file}; exec sleep 600' &)"
    assert start(f"{left}; while [ ! -e {file} ]; do sleep 0.05; done; exit 7").wait(60) == 7
    assert not psutil.pid_exists(int(file.read_text()))


def test_the_command_outlives_the_thread_that_started_it() -> None:
    """A signal at the parent's death would come at the death of the thread."""
    guards: list[Any] = []

    def start_and_see_it_run() -> None:
        guards.append(start(QUIET))
        below(guards[0].pid, 1)

    thread = threading.Thread(target=start_and_see_it_run)
    thread.start()
    thread.join()
    time.sleep(0.5)  # time for the signal to arrive, if one was sent
    assert guards[0].poll() is None
    assert not all_gone(below(guards[0].pid, 1))
    guards[0].terminate()
    guards[0].wait(60)


def test_the_guard_has_a_session_of_its_own() -> None:
    """So that Ctrl-C in a terminal reaches the parent alone, which ends it in order."""
    guard = start(QUIET)
    processes = below(guard.pid, 1)
    assert {os.getsid(process.pid) for process in processes} == {guard.pid}
    guard.terminate()
    guard.wait(60)
