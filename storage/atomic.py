"""Write, then rename: a file that exists under its name is complete."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from csr.errors import DataError, EnvironmentFault

TEMPORARY_SUFFIX = ".tmp"
"""Ends the name of every unfinished file; no reader looks at such a file."""

_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.ENOENT: "its folder cannot be made",
    errno.ENAMETOOLONG: "the name is too long",
}


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`.

    Whatever goes wrong, `path` holds either its old content or all of the new.
    EnvironmentFault where the disk is full or not writable; other errors pass through.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        try:
            write(temporary)
            _fsync(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _fsync(path.parent)


def publish_directory(temporary: Path, path: Path) -> None:
    """Make the finished directory `temporary` appear as `path`, all of it or none.

    Both must be on one file system. `path` must not exist: finished work is never
    overwritten (DataError).
    """
    if path.exists():
        raise DataError(
            f"{path} exists already and is never overwritten. Make a new attempt, or move it away."
        )
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for entry in sorted(temporary.rglob("*")):
            _fsync(entry)
        _fsync(temporary)
        os.rename(temporary, path)
        _fsync(path.parent)


def temporary_beside(path: Path) -> Path:
    """A free name beside `path` that no other writer uses; the dot hides it from readers."""
    return path.parent / f".{path.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """`text` as UTF-8, atomically."""
    write_atomic(path, lambda temporary: _write_text(temporary, text))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. DataError where it is missing or not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. Check the run's name and the home.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read as JSON ({error}). Restore it from a copy, or remove it."
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{path} holds no JSON object. Restore it from a copy, or remove it.")
    return value


@contextmanager
def short_lock(path: Path) -> Iterator[None]:
    """Hold `path` as a lock, waiting for whoever has it: for read-change-write of a file."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_temporaries(directory: Path) -> int:
    """Remove what an interrupted process left half-written below `directory`; how many."""
    leftovers = list(directory.rglob(f".*{TEMPORARY_SUFFIX}"))
    for path in leftovers:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(leftovers)


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_free_space(directory: Path, needed_bytes: int, option: str = "--home") -> None:
    """EnvironmentFault unless `directory` is or can be made, with `needed_bytes` free.

    `option` is where the user names another one.
    """
    with disk_errors(directory):
        existing = next(p for p in (directory, *directory.parents) if p.exists())
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise EnvironmentFault(
            f"{directory} has {_gib(free_bytes)} free, and the run needs {_gib(needed_bytes)}. "
            f"Free space there, or choose another disk with {option}."
        )
    if not os.access(existing, os.W_OK | os.X_OK) or existing.is_relative_to("/proc"):
        raise EnvironmentFault(
            f"{directory} cannot be written: {existing} is closed to this user. Choose another "
            f"folder with {option}."
        )


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _fsync(path: Path) -> None:
    """Wait until the file or directory is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or closed disk into a message that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise EnvironmentFault(
            f"cannot write {path}: {_DISK_ERRORS[error.errno]}. What was finished before is "
            "intact; mend that or choose another --home (CSR_CACHE for worlds), then start the "
            "same command again."
        ) from error
