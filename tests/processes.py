"""Looking at real processes: who is below whom, and who is still there."""

import time
from collections.abc import Callable, Sequence

import psutil

PATIENCE_SECONDS = 60.0
"""How long to wait for what must come; a busy machine takes its time."""


def wait_until(holds: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def below(pid: int, at_least: int) -> list[psutil.Process]:
    """All processes below `pid`, once there are so many."""
    process = psutil.Process(pid)
    wait_until(lambda: len(process.children(recursive=True)) >= at_least)
    return process.children(recursive=True)


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that run; what only waits to be collected does not."""
    return [
        process
        for process in processes
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]


def all_gone(processes: Sequence[psutil.Process]) -> bool:
    try:
        return not alive(processes)
    except psutil.NoSuchProcess:
        return False  # went while we looked: look again
