"""`csr worker`: Prefect's process worker, kept running, and the truth about its runs when it ends.

Prefect stops a worker's flow runs with it and goes on showing them as running. Before it starts,
after it ends and every minute in between, the runs of this machine that have no process are marked
as crashed or cancelled, so that they can be gone on with. A worker that ends by itself, as
Prefect's does where its server was too busy to answer, is started again.
"""

from __future__ import annotations

import contextlib
import logging
import platform
import signal
import subprocess
import sys
import threading
import time
from types import FrameType

from flows.deploying import WORK_POOL
from flows.server import require_server
from flows.settling import settle_dead_runs

logger = logging.getLogger("csr")

EARLY_SECONDS = 60.0
"""A worker that ends sooner was not doing its work."""
MAX_EARLY_ENDS = 5
"""So many in a row, and something is set up wrongly."""
FIRST_PAUSE_SECONDS = 5.0
"""Doubled after each early end."""
SETTLE_SECONDS = 60.0
"""Between two looks for runs that have lost their process."""


def work(num_flow_runs: int) -> int:
    """Keep a worker running until it is stopped; its exit status. EnvironmentFault without a
    server.
    """
    require_server()
    command = [
        sys.executable, "-m", "prefect", "worker", "start", "--pool", WORK_POOL,
        "--type", "process", "--limit", str(num_flow_runs),
        "--name", f"csr-{platform.node()}",
    ]  # fmt: skip
    return keep_running(command)


def keep_running(command: list[str], first_pause_seconds: float = FIRST_PAUSE_SECONDS) -> int:
    """Run the command again and again, until this process is told to stop or it keeps failing."""
    worker, num_early_ends = _Worker(), 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, worker.stop)
    while True:
        started = time.monotonic()
        status = worker.run(command)
        if worker.stopped.is_set() or status in (0, -signal.SIGTERM, -signal.SIGINT):
            return 0
        was_early = time.monotonic() - started < EARLY_SECONDS
        num_early_ends = num_early_ends + 1 if was_early else 0
        if num_early_ends == MAX_EARLY_ENDS:
            return status
        pause = first_pause_seconds * 2**num_early_ends
        logger.warning("Prefect's worker ended (status %d); the next in %.0f s", status, pause)
        worker.stopped.wait(pause)


class _Worker:
    """One process at a time, until a signal says to stop."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, command: list[str]) -> int:
        """The exit status of the command; 0 where this was stopped before it began."""
        _settle()
        if self.stopped.is_set():
            return 0
        self._process = subprocess.Popen(command, start_new_session=True)
        if self.stopped.is_set():  # between the two lines above
            self._process.send_signal(signal.SIGTERM)
        status = _wait_and_settle(self._process)
        _settle()
        return status

    def stop(self, signum: int, frame: FrameType | None) -> None:
        """Handles the signal."""
        self.stopped.set()
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)


def _wait_and_settle(process: subprocess.Popen[bytes]) -> int:
    """The exit status of the process."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=SETTLE_SECONDS)
        _settle(min_seconds=SETTLE_SECONDS)


def _settle(min_seconds: float = 0.0) -> None:
    """A server that does not answer now is asked again next time."""
    import httpx

    try:
        names = settle_dead_runs(min_seconds)
    except httpx.HTTPError as error:
        logger.warning("The server did not answer (%s); runs stay as they are", error)
        return
    for name in names:
        logger.warning("%s: its process is gone; marked as ended", name)
