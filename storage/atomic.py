"""Write, then rename: a file that exists under its name is complete."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from csr.errors import DataError, EnvironmentFault
from csr.files import TEMPORARY_SUFFIX, disk_errors, fsync, temporary_beside


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
            fsync(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync(path.parent)


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
