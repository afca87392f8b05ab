"""Where an export goes: all of it or nothing, and never over anything that is not an export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from csr.errors import ConfigError
from csr.files import disk_errors, file_sha256, replaced_directory
from csr.protocols import Json
from storage.atomic import write_json

RECORD = "csr_export.json"
"""What marks a folder, or a repository on the hub, as an export of ours."""


def checked_output(
    output: Path, *, overwrite: bool, closed: Iterable[Path], read: Iterable[Path]
) -> Path:
    """The folder to make, behind any links. ConfigError where something there would be lost.

    Nothing may be put into the folders `closed`, and the output may hold none of the files and
    folders that the export reads.
    """
    path = output.expanduser().resolve()
    shut = [each.resolve() for each in closed]
    for each in shut:
        if path.is_relative_to(each):
            raise ConfigError(
                f"--output {path} lies in {each}, which holds what is exported. Choose a folder "
                "elsewhere."
            )
    for each in (*shut, *(source.resolve() for source in read)):
        if each.is_relative_to(path):
            raise ConfigError(
                f"--output {path} holds {each}, which the export reads. Choose a folder of its own."
            )
    if Path.cwd().is_relative_to(path) or path.is_mount():
        raise ConfigError(
            f"--output {path} is a mount point or the folder that the command runs in, and cannot "
            "appear all at once. Give a new folder inside it."
        )
    if path.exists() and not path.is_dir():
        raise ConfigError(f"--output {path} is a file. Give a folder, which may not exist yet.")
    if path.is_dir() and any(path.iterdir()):
        _may_replace(path, overwrite)
    return path


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `path` when all went well; else nothing is left.

    EnvironmentFault where the disk takes no more.
    """
    with replaced_directory(path) as building:
        with disk_errors(path):
            building.mkdir(parents=True)
        yield building


def write_record(folder: Path, facts: Json) -> None:
    """`facts` and every file's checksum, in the file that marks an export."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    sums = {file.relative_to(folder).as_posix(): file_sha256(file) for file in files}
    write_json(folder / RECORD, {**facts, "files_sha256": sums})


def _may_replace(path: Path, overwrite: bool) -> None:
    if not overwrite:
        raise ConfigError(
            f"--output {path} is not empty. Choose another folder, or give --overwrite where it "
            "holds an older export."
        )
    if not (path / RECORD).is_file():
        raise ConfigError(
            f"--output {path} holds something else than an export of csr (there is no {RECORD}), "
            "and is not overwritten. Choose another folder, or empty it yourself."
        )
