"""The stage process: does one stage after another, its engines kept warm.

`python -m flows.stage_worker SOCKET HOME` is started by `flows.stage_process`, under a guard.
Whatever is printed here goes to the stage's log file; log lines and progress also go back.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from pathlib import Path

from flows.engines import close_engines
from flows.interrupts import orderly_sigterm
from flows.progress import relay_progress
from flows.stage_jobs import done_job
from flows.stage_wire import Wire

_SECONDS_BETWEEN_REPORTS = 0.5
_RELAYED = {
    "csr": logging.INFO,
    "vllm": logging.WARNING,
    "trl": logging.WARNING,
    "transformers": logging.WARNING,
    "py": logging.WARNING,  # Python's own warnings
}
"""Package -> least level of its lines that go back."""


def main(descriptor: int, home: str) -> int:
    """Serve until the socket closes or SIGTERM comes."""
    wire = Wire(socket.socket(fileno=descriptor))
    _send_logs(wire)
    relay_progress(lambda label: _ProgressRelay(wire, label))
    try:
        with orderly_sigterm():
            while (job := wire.receive()) is not None:
                _print_into(Path(job.pop("log")))
                wire.send(answer=done_job(home, **job))
    except KeyboardInterrupt:
        return 143
    finally:
        close_engines()
    return 0


def _print_into(log: Path) -> None:
    """Send all output of this process, engines' C++ code included, to the end of `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _send_logs(wire: Wire) -> None:
    to_file = logging.StreamHandler()
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    relay = _LogRelay(wire)
    logging.basicConfig(level=logging.WARNING, handlers=[to_file, relay])
    logging.captureWarnings(True)
    logging.getLogger("csr").setLevel(logging.INFO)
    # It shows its lines itself and passes none on to the root.
    logging.getLogger("transformers").addHandler(relay)


class _LogRelay(logging.Handler):
    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def emit(self, record: logging.LogRecord) -> None:
        package = record.name.partition(".")[0]
        if package in _RELAYED and record.levelno >= _RELAYED[package]:
            self._wire.send(log=[record.name, record.levelno, record.getMessage()])


class _ProgressRelay:
    """Reports now and then, and at the end."""

    def __init__(self, wire: Wire, label: str) -> None:
        self._wire, self._label = wire, label
        self._reported = float("-inf")

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self._reported < _SECONDS_BETWEEN_REPORTS:
            return
        self._reported = now
        self._wire.send(progress=[self._label, done, total])


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
