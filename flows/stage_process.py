"""Runs engine stages in a child process: it frees all memory when it ends, and may crash.

One child lives at a time, and stages of one kind follow each other in it with warm engines. It
is ended before a stage of the other kind begins: the sampler before training, which wants all
memory, and the trainer after it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from csr.errors import EngineLost, RunFailed
from csr.protocols import Progress
from flows import environment
from flows.progress import stage_progress
from flows.stage_names import ENGINES
from flows.stage_wire import Wire, revive_error
from flows.supervise import GRACE_SECONDS, guarded
from storage.attempt import AttemptDir

WORKER = (sys.executable, "-P", "-u", "-X", "faulthandler", "-m", "flows.stage_worker")

_MARGIN_SECONDS = 5.0
"""For the guard itself to end."""
_MEMORY_ADVICE = (
    "Most often memory is short: lower shard_size and the components' batch settings (such as "
    "max_num_seqs, batch_size, image_batch_size)."
)
_TIME_ADVICE = "Raise stage_timeout_seconds where the work needs longer, or lower shard_size."
_TAIL_BYTES = 4000
_TAIL_LINES = 12


class StageProcess:
    """Does the stages of the runs below one home. Threads may share it: they take turns."""

    def __init__(self, home: str, *, grace_seconds: float = GRACE_SECONDS) -> None:
        self._home = home
        self._grace_seconds = grace_seconds
        self._turn = threading.Lock()
        self._child: _Child | None = None
        self._closed = False

    def do(
        self,
        attempt: AttemptDir,
        stage: str,
        shard: int | None = None,
        *,
        num_waves: int = 1,
        timeout_seconds: float | None = None,
    ) -> None:
        """Run one stage, starting the child where there is none.

        EngineLost where the child dies, or takes longer than `timeout_seconds`, its start
        included. A CSRError of the child is raised here, any other error as RunFailed.
        """
        log = attempt.logs / f"{stage}.log"
        log.parent.mkdir(exist_ok=True)
        job: dict[str, Any] = {
            "attempt_id": str(attempt.id),
            "stage": stage,
            "shard": shard,
            "num_waves": num_waves,
            "log": str(log),
        }
        with self._turn:
            deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
            child = self._child_for(ENGINES[stage], log)
            try:
                self._answer(child, job, deadline)
            except BaseException:
                self._end_child()
                raise

    def close(self) -> None:
        """End the child. A stage under way, in whichever thread, ends with RunFailed."""
        self._closed = True
        self._end_child()

    def _child_for(self, engine: str, log: Path) -> _Child:
        if self._child is not None and (self._child.engine != engine or self._child.has_ended()):
            self._end_child()
        self._check_open()
        if self._child is None:
            self._child = _Child(engine, self._home, log, self._grace_seconds)
        return self._child

    def _answer(self, child: _Child, job: dict[str, Any], deadline: float | None) -> None:
        what, log = _label(job), job["log"]
        try:
            error = child.ask(job, deadline)
        except TimeoutError:
            self._end_child()
            raise EngineLost(f"{what} took too long and was ended. {_TIME_ADVICE}") from None
        except EOFError:
            self._check_open()
            how = child.end()
            raise EngineLost(
                f"{what}: its process {how}. {_MEMORY_ADVICE} The end of its output, from {log}:\n"
                f"{_tail(log)}"
            ) from None
        if error is not None:
            raise revive_error(error, log)

    def _check_open(self) -> None:
        if self._closed:
            raise RunFailed("The run was stopped. The same command resumes it.")

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()


_running: dict[str, StageProcess] = {}


def stage_process(home: str) -> StageProcess:
    """The stage process of this process for a home."""
    return _running.setdefault(home, StageProcess(home))


def close_stage_processes() -> None:
    """End all stage processes of this process."""
    while _running:
        _running.popitem()[1].close()


class _Child:
    """One process under its guard."""

    def __init__(self, engine: str, home: str, log: Path, grace_seconds: float) -> None:
        self.engine = engine
        self._grace_seconds = grace_seconds
        ours, theirs = socket.socketpair()
        self._wire = Wire(ours)
        with theirs, log.open("ab") as output:
            command = [*WORKER, str(theirs.fileno()), home]
            self._guard = subprocess.Popen(
                guarded(command, grace_seconds),
                env=environment.for_stage_process(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(theirs.fileno(),),
            )

    def ask(self, job: dict[str, Any], deadline: float | None) -> dict[str, str] | None:
        """Hand over a job; None, or what went wrong.

        EOFError where the child ends first, TimeoutError after `deadline`.
        """
        with contextlib.suppress(ConnectionError):  # what is read below tells it
            self._wire.send(**job)
        with _ProgressView() as view:
            while (message := self._wire.receive(deadline)) is not None:
                if "answer" in message:
                    answer: dict[str, str] | None = message["answer"]
                    return answer
                if "log" in message:
                    name, level, text = message["log"]
                    logging.getLogger(name).log(level, "%s", text)
                else:
                    view.show(*message["progress"])
        raise EOFError

    def has_ended(self) -> bool:
        return self._guard.poll() is not None

    def end(self) -> str:
        """End it with everything below it; how it ended, for a message."""
        self._guard.terminate()
        try:
            status = self._guard.wait(self._grace_seconds + _MARGIN_SECONDS)
        except subprocess.TimeoutExpired:
            status = -signal.SIGKILL
        if status < 0:  # the guard itself was killed, and could end nobody
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._guard.pid, signal.SIGKILL)
            self._guard.wait()
        self._wire.close()
        return _ending(status)


class _ProgressView:
    """Shows what the child is at."""

    def __init__(self) -> None:
        self._label = ""
        self._shown = contextlib.ExitStack()
        self._progress: Progress | None = None

    def __enter__(self) -> _ProgressView:
        return self

    def __exit__(self, *unused: object) -> None:
        self._shown.close()

    def show(self, label: str, done: int, total: int) -> None:
        if label != self._label or self._progress is None:
            self._shown.close()
            self._label = label
            self._progress = self._shown.enter_context(stage_progress(label))
        self._progress(done, total)


def _label(job: dict[str, Any]) -> str:
    shard = "" if job["shard"] is None else f" shard {job['shard']}"
    return f"{job['attempt_id']} {job['stage']}{shard}"


def _ending(status: int) -> str:
    number = -status if status < 0 else status - 128
    if number in {each.value for each in signal.Signals}:
        return f"was ended by {signal.Signals(number).name}"
    return f"ended with status {status}"


def _tail(log: str) -> str:
    """The last whole lines of a log file."""
    with Path(log).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _TAIL_BYTES, 0))
        text = file.read().decode(errors="replace")
    return "\n".join(f"  {line}" for line in text.splitlines()[-_TAIL_LINES:])
