"""One process at a time works on a run.

The lock is the kernel's, on an open file: it ends with the process that holds it, however that
ends, so a killed process leaves none behind, and no clock decides anything.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from csr.errors import EnvironmentFault
from csr.files import disk_errors
from storage.atomic import remove_temporaries
from storage.manifest import utc_now

_LOCK_TRIES = 3
_LOCK_PAUSE_SECONDS = 0.02

_held: dict[Path, int] = {}
"""Locks of this process -> how often they were taken: a command takes one, its flow again."""


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Be the only process that works on the run in `directory`; half-written files are removed.

    EnvironmentFault where another process has it, naming that process.
    """
    directory = directory.resolve()
    if directory in _held:
        _held[directory] += 1
        try:
            yield
        finally:
            _held[directory] -= 1
        return
    with disk_errors(directory):
        file = (directory / ".lock").open("a+")
    with file:
        with disk_errors(directory):
            _take(file, directory.name)
            remove_temporaries(directory)
        _held[directory] = 1
        try:
            yield
        finally:
            del _held[directory]


def is_run_locked(directory: Path) -> bool:
    """Whether a process works on the run now; one that was killed no longer does."""
    path = directory / ".lock"
    if not path.exists():
        return False
    if directory.resolve() in _held:
        return True
    with path.open() as file:
        return not _locked(file, fcntl.LOCK_SH)


def _take(file: IO[str], run_id: str) -> None:
    if not _locked(file, fcntl.LOCK_EX):
        file.seek(0)
        raise EnvironmentFault(
            f"run {run_id} is being worked on by {file.read() or 'another process'}. Wait until "
            "it ends, or stop it, then start again."
        )
    file.truncate(0)
    file.write(f"process {os.getpid()} on {os.uname().nodename} since {utc_now()}")
    file.flush()


def _locked(file: IO[str], kind: int) -> bool:
    """Take a lock unless another process keeps it. A look by `is_run_locked` is over in no time."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_SECONDS)
    return False
