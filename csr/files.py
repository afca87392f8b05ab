"""Write under a temporary name, flush, rename: what exists under its name is complete."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from csr.errors import CSRError, DataError, EnvironmentFault

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

_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Those of `_DISK_ERRORS` that only a write can raise."""

_RUST_ERRNO = re.compile(r"\(os error (\d+)\)")


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
            fsync(entry)
        fsync(temporary)
        os.rename(temporary, path)
        fsync(path.parent)


@contextmanager
def replaced_directory(path: Path) -> Iterator[Path]:
    """A directory to make and fill, which takes the place of `path` when all went well; else what
    is at `path` stays.

    EnvironmentFault where the disk takes no more.
    """
    building, old = temporary_beside(path), temporary_beside(path)
    try:
        with write_errors(path):
            yield building
        with disk_errors(path):
            if path.exists():
                os.rename(path, old)
        try:
            publish_directory(building, path)
        except BaseException:
            if old.exists():
                os.rename(old, path)
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def temporary_beside(path: Path) -> Path:
    """A free name beside `path` that no other writer uses; the dot hides it from readers."""
    return path.parent / f".{path.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Wait until the file or directory is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or closed disk into a message that says what to do."""
    with _told_as_faults(path, tuple(_DISK_ERRORS)):
        yield


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """As `disk_errors`, for a library's work that also reads: only what a write alone can raise."""
    with _told_as_faults(path, _WRITE_ERRORS):
        yield


@contextmanager
def _told_as_faults(path: Path, numbers: tuple[int, ...]) -> Iterator[None]:
    try:
        yield
    except CSRError:
        raise
    except Exception as error:
        number = _error_number(error)
        if number is None or number not in numbers:
            raise
        raise EnvironmentFault(
            f"cannot write {path}: {_DISK_ERRORS[number]}. What was finished before is intact; "
            "mend that or choose another place (--home or --output; CSR_CACHE for worlds), then "
            "start the same command again."
        ) from error


def _error_number(error: Exception) -> int | None:
    """The disk's own; safetensors has it at the end of its text alone, "(os error 28)"."""
    told = _RUST_ERRNO.search(str(error))
    return int(told[1]) if told else getattr(error, "errno", None)
