"""Which flow runs have lost their process."""

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from flows.settling import HOST_LABEL, PID_LABEL, STARTED_LABEL, is_dead
from tests.processes import wait_until


@pytest.fixture
def process() -> Iterator[psutil.Popen]:
    started = psutil.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield started
    with contextlib.suppress(psutil.NoSuchProcess):
        started.kill()
    started.wait()


def labels(process: psutil.Popen) -> dict[str, Any]:
    return {
        HOST_LABEL: platform.node(),
        PID_LABEL: process.pid,
        STARTED_LABEL: process.create_time(),
    }


def test_a_process_that_runs_is_alive(process: psutil.Popen) -> None:
    assert not is_dead(labels(process))


def test_a_zombie_that_nobody_collects_is_dead(process: psutil.Popen) -> None:
    noted = labels(process)
    os.kill(process.pid, 9)
    wait_until(lambda: process.status() == psutil.STATUS_ZOMBIE)
    assert is_dead(noted)


def test_what_was_collected_is_dead(process: psutil.Popen) -> None:
    noted = labels(process)
    process.kill()
    process.wait()
    assert is_dead(noted)


def test_another_process_with_that_number_is_not_it(process: psutil.Popen) -> None:
    assert is_dead(labels(process) | {STARTED_LABEL: process.create_time() - 60})


@pytest.mark.parametrize("labels_", [{}, {HOST_LABEL: "elsewhere", PID_LABEL: 1}])
def test_other_machines_runs_are_left_to_them(labels_: dict[str, Any]) -> None:
    assert not is_dead(labels_)
