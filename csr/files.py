"""Write under a temporary name, flush, rename: what exists under its name is complete."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
