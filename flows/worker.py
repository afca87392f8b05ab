"""`csr worker`: Prefect's process worker, and the truth about its runs when it ends.

Prefect stops a worker's flow runs with it and goes on showing them as running. Before it starts
and after it ends, the runs of this machine that have no process are marked as crashed, so that
they can be gone on with.
"""

from __future__ import annotations

import logging
import platform
import signal
import subprocess
import sys
from types import FrameType

from flows.deploying import WORK_POOL
from flows.server import require_server
from flows.settling import settle_dead_runs

logger = logging.getLogger("csr")


def work(num_flow_runs: int) -> int:
    """Run a worker until it is stopped; its exit status. EnvironmentFault without a server."""
    require_server()
    _settle()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "prefect", "worker", "start", "--pool", WORK_POOL,
            "--type", "process", "--limit", str(num_flow_runs),
            "--name", f"csr-{platform.node()}",
        ],
        start_new_session=True,
    )  # fmt: skip

    def forward(signum: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    status = process.wait()
    _settle()
    return 0 if status in (-signal.SIGTERM, -signal.SIGINT) else status


def _settle() -> None:
    for name in settle_dead_runs():
        logger.warning("%s: its process is gone; marked as crashed", name)
