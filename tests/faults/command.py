"""The `csr` command in a process forked from one that has imported everything.

Such a process starts in milliseconds, so hundreds of runs can be killed in a minute or two.
The parent imports and does nothing else, so that no thread of a library is lost by forking.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from tests.faults.events import NO_FAULT, SCRIPTED_CALLS, Fault, Watch

ROOT = Path(__file__).resolve().parents[2]
RUN = "mine"
_PRELOADED = "tests.faults.preloaded"
TIMEOUT_SECONDS = 300

_one_at_a_time = threading.Lock()
"""Starting a process asks how others ended; of two threads that ask at once, one hears 255."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    """Negative: the signal that ended it."""
    err: str
    events: list[str]

    @property
    def last_line(self) -> str:
        """What it said last."""
        return (self.err.strip().splitlines() or [""])[-1]


def context() -> Any:
    """Processes forked from one warm parent, which starts with the first of them."""
    chosen = multiprocessing.get_context("forkserver")
    chosen.set_forkserver_preload([_PRELOADED])
    return chosen


def start_parent() -> None:
    """Start it in our folder, with one thread a library; from then on it serves every call."""
    context()
    before, folder = os.environ.copy(), os.getcwd()
    os.environ.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    os.chdir(ROOT)
    try:
        forkserver.ensure_running()
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)


def start(
    recipe: Path,
    home: Path,
    log: Path,
    fault: Fault = NO_FAULT,
    before: Callable[[], None] | None = None,
) -> Any:
    """Start `csr run` on `recipe`; its output and events go to files named after `log`.

    `before` is called in the new process first.
    """
    arguments = ("run", str(recipe), "--home", str(home), "--run-id", RUN)
    process = context().Process(target=_command, args=(arguments, home, log, fault, before))
    with _one_at_a_time:
        process.start()
    return process


def end(process: Any, log: Path) -> Ended:
    """Wait for it."""
    assert wait([process.sentinel], TIMEOUT_SECONDS), f"the command hangs: {log}"
    with _one_at_a_time:
        process.join()
    return Ended(
        status=process.exitcode,
        err=log.with_suffix(".err").read_text(),
        events=log.with_suffix(".events").read_text().splitlines(),
    )


def run(
    recipe: Path,
    home: Path,
    log: Path,
    fault: Fault = NO_FAULT,
    before: Callable[[], None] | None = None,
) -> Ended:
    """`start` and `end`."""
    return end(start(recipe, home, log, fault, before), log)


def _command(
    arguments: tuple[str, ...],
    home: Path,
    log: Path,
    fault: Fault,
    before: Callable[[], None] | None,
) -> None:
    from flows import cli
    from tests.scripted_run import without_prefect

    for stream, suffix in ((1, ".out"), (2, ".err")):
        file = os.open(log.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream)
        os.close(file)
    sys.argv = ["csr", *arguments]
    sys.modules.update(without_prefect())
    if before is not None:
        before()
    Watch(home, log.with_suffix(".events"), fault).start(SCRIPTED_CALLS)
    cli.main()
