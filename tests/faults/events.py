"""The events of a run, counted, and one fault at one of them.

An event is a change of the disk below the run's home, the border of a stage, or a call of a
component. Changes are seen by Python's audit hook; what it cannot see (fsync, and the writers
in C++ and Rust) is wrapped. A process that was told to watch keeps watching to its end.
"""

import errno
import functools
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PATH_ARGUMENTS = {
    "os.rename": (1, 3),
    "os.link": (1, 3),
    "os.symlink": (1, 2),
    "os.mkdir": (0, 2),
    "os.remove": (0, 1),
    "os.rmdir": (0, 1),
    "os.truncate": (0, None),
    "shutil.rmtree": (0, 1),
}
"""Audit event -> where its path stands among the arguments, and the folder it is relative to."""

TAKES_SPACE = ("open", "os.mkdir", "fsync", "write", "os.truncate")
"""What a full disk refuses; renaming and removing go on."""

ALL_CHANGES = (*PATH_ARGUMENTS, *TAKES_SPACE)

Owner = tuple[str, str, str]
"""Module, class or "", name of a function."""

BORDERS: tuple[Owner, ...] = (
    ("flows.stages", "", "run_stage"),
    ("flows.training", "", "run_stage"),
    ("flows.benchmarks", "", "run_stage"),
    ("flows.gating", "", "run_stage"),
    ("storage.manifest", "ManifestFile", "record"),
)
SCRIPTED_CALLS: tuple[Owner, ...] = (
    ("csr.samplers.scripted", "ScriptedSampler", "load_policy"),
    ("csr.samplers.scripted", "ScriptedSampler", "sample_steps"),
    ("csr.samplers.scripted", "ScriptedSampler", "generate"),
    ("csr.samplers.scripted", "ScriptedSampler", "score"),
    ("rewards.similarity.scripted", "ScriptedSimilarity", "image_text"),
    ("csr.trainers.scripted", "ScriptedTrainer", "train"),
    ("csr.trainers.scripted", "ScriptedTrainer", "score"),
    ("csr.evaluation.captions", "CaptionBenchmark", "evaluate"),
)
WRITERS: tuple[Owner, ...] = (
    ("pyarrow.parquet", "", "write_table"),
    ("safetensors.numpy", "", "save_file"),
)


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and at which event, counted from 1; 0 is never.

    `kill` just before it; `torn`: the file about to be synced loses its second half, then kill;
    `full`: from then on nothing that takes space succeeds; `full_once`: only this does not, as
    where a file is too large for what is left; `read_only`: from then on no change succeeds.
    """

    kind: str
    at: int


NO_FAULT = Fault("none", 0)


class Watch:
    """Counts events, writes their names to a file, and makes the fault happen."""

    def __init__(self, home: Path, log: Path, fault: Fault) -> None:
        self._home, self._fault = f"{home.resolve()}/", fault
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._count, self._inside, self._process = 0, False, os.getpid()

    def start(self, calls: tuple[Owner, ...]) -> None:
        """Watch this process from here on."""
        sys.addaudithook(self._on_audit)
        os.fsync = self._on_fsync  # the kernel keeps what a killed process wrote: counting will do
        for owner in WRITERS:
            self._wrap(owner, self._written)
        for owner in (*BORDERS, *calls):
            self._wrap(owner, self._called)

    def _wrap(self, owner: Owner, around: Callable[..., Any]) -> None:
        module, cls, name = owner
        holder: Any = import_module(module)
        holder = getattr(holder, cls) if cls else holder
        original = getattr(holder, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return around(name, original, args, kwargs)

        setattr(holder, name, wrapped)

    def _called(self, name: str, original: Any, args: Any, kwargs: Any) -> Any:
        stage = f" {args[1]} {_shard(args, kwargs)}" if name == "run_stage" else ""
        self._event(f"call {name}{stage}")
        answer = original(*args, **kwargs)
        if name in ("run_stage", "record"):
            self._event(f"end {name}{stage}")
        return answer

    def _written(self, name: str, original: Any, args: Any, kwargs: Any) -> Any:
        path = str(args[1])
        if path.startswith(self._home):
            self._event(f"write {self._shown(path)}", path)
        return original(*args, **kwargs)

    def _on_fsync(self, file: int) -> None:
        path = os.readlink(f"/proc/self/fd/{file}")
        if f"{path}/".startswith(self._home):
            self._event(f"fsync {self._shown(path)}", path)

    def _on_audit(self, event: str, args: tuple[Any, ...]) -> None:
        if self._inside or (event != "open" and event not in PATH_ARGUMENTS):
            return
        self._inside = True
        try:
            path = _changed_path(event, args)
            if path is None or not f"{path}/".startswith(self._home):
                return
            self._event(f"{event} {self._shown(path)}", path)
        finally:
            self._inside = False

    def _shown(self, path: str) -> str:
        """Below the home, without what differs from run to run."""
        below = f"{path}/".removeprefix(self._home).rstrip("/") or "HOME"
        return re.sub(r"[0-9a-f]{32}|(?<=\.training-)\w+", "*", below)

    def _event(self, name: str, path: str = "") -> None:
        if os.getpid() != self._process:
            return  # an engine's own helper
        self._count += 1
        os.write(self._log, f"{name}\n".encode())
        fault = self._fault
        if fault.kind in ("kill", "torn") and self._count == fault.at:
            if fault.kind == "torn" and os.path.isfile(path):
                self._inside = True
                os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        lasting = fault.kind in ("full", "read_only") and self._count >= fault.at
        if path and (lasting or (fault.kind == "full_once" and self._count == fault.at)):
            self._refuse(name, path)

    def _refuse(self, name: str, path: str) -> None:
        kind, _, _ = name.partition(" ")
        if kind == "shutil.rmtree":
            return  # said before it begins, where nothing can be caught; what it removes is refused
        read_only = self._fault.kind == "read_only"
        if not read_only and kind not in TAKES_SPACE:
            return
        number = errno.EROFS if read_only else errno.ENOSPC
        if kind == "write" and path.endswith(".safetensors"):
            from safetensors import SafetensorError

            raise SafetensorError(
                f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})"
            )
        raise OSError(number, os.strerror(number), path)


def _changed_path(event: str, args: tuple[Any, ...]) -> str | None:
    """What would change; None where nothing does."""
    if event == "open":
        path, _, flags = args
        if isinstance(path, int) or not flags & WRITING:
            return None
        return os.path.abspath(os.fsdecode(path))
    at, folder_at = PATH_ARGUMENTS[event]
    path = os.fsdecode(args[at])
    folder = args[folder_at] if folder_at is not None else None
    if isinstance(folder, int) and folder >= 0:
        path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
    path = os.path.abspath(path)
    exists = os.path.lexists(path)
    if exists == (event == "os.mkdir") and event not in ("os.rename", "os.link", "os.symlink"):
        return None  # a folder that is there already, or nothing to remove
    return path


def _shard(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """E.g. "01 shard 2" of the arguments of `run_stage`."""
    shard = kwargs.get("shard", args[4] if len(args) > 4 else None)
    iteration = f"{args[0].attempt.id.iteration:02d}"
    return iteration if shard is None else f"{iteration} shard {shard}"
