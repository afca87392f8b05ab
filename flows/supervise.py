"""Run a command so that nothing of it outlives whoever asked for it.

```
python -m flows.supervise [--grace-seconds 10] [--parent PID] -- COMMAND...
```

The guard has a session of its own, so Ctrl-C in a terminal reaches only who started it. When
the command ends, or the guard is told to (SIGTERM, SIGINT, SIGHUP), or its parent is gone by
whatever means, every process that the command left below itself gets SIGTERM, and after the
grace time SIGKILL. Processes with a session of their own are found too: an orphan becomes the
guard's child (Linux). The guard's exit status is the command's; 128 + N where signal N ended it.

Asking now and then who the parent is, instead of a signal at its death: the kernel sends that
one already when the parent's *thread* ends, and stages may be started from short-lived threads.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

GRACE_SECONDS = 10.0
"""From SIGTERM to SIGKILL."""
_POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def guarded(command: Sequence[str], grace_seconds: float) -> list[str]:
    """The command line that runs `command` under a guard of this process."""
    guard = [sys.executable, "-P", "-m", "flows.supervise"]
    options = ["--grace-seconds", str(grace_seconds), "--parent", str(os.getpid())]
    return [*guard, *options, "--", *command]


def supervise(command: Sequence[str], parent: int, grace_seconds: float) -> int:
    """Run `command` to its end, or until it has to go; its exit status."""
    told: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        told.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, note)
    with contextlib.suppress(PermissionError):  # a shell's job leads its group already
        os.setsid()
    _adopt_orphans()
    leader = _start(command)
    statuses: dict[int, int] = {}
    while leader not in statuses and not told and os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
        statuses |= _reap()
    statuses |= _end_all(grace_seconds)
    code = os.waitstatus_to_exitcode(statuses[leader])
    return code if code >= 0 else 128 - code


def _start(command: Sequence[str]) -> int:
    """The command's process ID. Other open files than the guard's own pass through."""
    guard, libc = os.getpid(), ctypes.CDLL(None)

    def die_with_the_guard() -> None:
        if sys.platform == "linux":
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(1)

    # The guard has one thread, so code may run between fork and exec.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=die_with_the_guard,
    )
    process.returncode = 0  # `_reap` collects it: Popen is not to wait for it
    return process.pid


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _reap() -> dict[int, int]:
    """Process ID -> wait status of all children that have ended."""
    statuses = {}
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            statuses[ended[0]] = ended[1]
    return statuses


def _end_all(grace_seconds: float) -> dict[int, int]:
    """End every process below this one; the wait statuses of those that were its children."""
    # Imported here: it takes longer than the rest of the guard, and only the end needs it.
    import psutil

    guard, statuses = psutil.Process(), _reap()
    deadline = time.monotonic() + grace_seconds
    _send(signal.SIGTERM, guard.children(recursive=True))
    while left := guard.children(recursive=True):
        if time.monotonic() > deadline:
            _send(signal.SIGKILL, left)
        time.sleep(_POLL_SECONDS)
        statuses |= _reap()
    return statuses | _reap()


def _send(number: int, processes: Sequence[psutil.Process]) -> None:
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _main() -> int:
    parser = argparse.ArgumentParser(prog="flows.supervise")
    parser.add_argument("--grace-seconds", type=float, default=GRACE_SECONDS)
    parser.add_argument("--parent", type=int, default=os.getppid())
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    return supervise(options.command, options.parent, options.grace_seconds)


if __name__ == "__main__":
    sys.exit(_main())
