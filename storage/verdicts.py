"""What people have said so far of an attempt's responses, one small file a verdict.

```
verdicts/<annotator>/00000007.parquet
```
Each file is one row of the `annotations` table, on the disk before the page goes on, so that
nothing is lost when a process is killed. A later verdict of the same person on the same response
replaces the earlier one. Taking back removes the person's newest file: the one before it on the
same response, if any, holds again.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from csr.annotations import Annotation
from csr.errors import ConfigError, CSRError, DataError, EnvironmentFault, shown
from csr.files import disk_errors, fsync
from storage.atomic import short_lock
from storage.critique import annotations_from_table, annotations_to_table
from storage.tables import read_table, write_table

MAX_NAME_BYTES = 200
"""Of a folder's name; file systems take 255."""

_NAME = re.compile(r"[^\W_]([\w .@+-]{0,62}[^\W_])?")


def annotator_name(text: str) -> str:
    """The name as it is stored. ConfigError where it cannot name a folder.

    Letters of any script, digits and inner ` . _ @ + -`, so that an e-mail address will do.
    """
    name = unicodedata.normalize("NFC", text).strip()
    if not _NAME.fullmatch(name) or len(name.encode()) > MAX_NAME_BYTES:
        raise ConfigError(
            f"{shown(text, 60)} cannot name an annotator. Use up to 64 letters, digits, spaces and "
            "'.', '_', '@', '+', '-', starting and ending with a letter or digit."
        )
    return name


class Outdated(CSRError):
    """Somebody has judged under this name since the person last looked; nothing was changed."""


@dataclass(frozen=True, slots=True)
class VerdictFolder:
    """The verdicts on one attempt's responses; safe to use from many processes at once."""

    directory: Path
    iteration: int
    _known: dict[tuple[str, int, int], Annotation] = field(default_factory=dict)
    """What was read before: a file is never changed, but its name may be given again."""

    def read(self) -> list[Annotation]:
        """Each annotator's last verdict on each response, in the order of annotators and time.

        DataError where a file is damaged or lies in another person's folder.
        """
        latest: dict[tuple[str, str], Annotation] = {}
        for file in verdict_files(self.directory):
            verdict = self._verdict(file)
            if verdict is not None:
                latest[verdict.annotator, verdict.response_id] = verdict
        return list(latest.values())

    def mark(self, annotator: str) -> str:
        """Changes with every verdict that this person gives or takes back."""
        files = self._files(annotator_name(annotator))
        return f"{files[-1].name} {files[-1].stat().st_mtime_ns}" if files else "none"

    def add(self, verdict: Annotation, seen: str | None = None) -> None:
        """Keep a verdict: when this returns, it is on the disk.

        Outdated where `seen` is given and no longer the person's mark. EnvironmentFault where the
        disk takes no more.
        """
        annotator = annotator_name(verdict.annotator)
        assert annotator == verdict.annotator, verdict.annotator
        table = annotations_to_table([verdict], iteration=self.iteration)
        with self._turn(annotator, seen) as folder:
            files = self._files(annotator)
            number = int(files[-1].stem) + 1 if files else 1
            path = folder / f"{number:08d}.parquet"
            try:
                write_table(path, table)
            except EnvironmentFault:  # a run that starts removes every half-written file
                write_table(path, table)

    def undo(self, annotator: str, seen: str | None = None) -> Annotation | None:
        """Take back the person's newest verdict, for good; None where there is none.

        Outdated as `add`.
        """
        annotator = annotator_name(annotator)
        with self._turn(annotator, seen) as folder:
            files = self._files(annotator)
            if not files:
                return None
            verdict = read_verdict(files[-1])
            with disk_errors(files[-1]):
                files[-1].unlink()
                fsync(folder)
            return verdict

    @contextmanager
    def _turn(self, annotator: str, seen: str | None) -> Iterator[Path]:
        """The person's folder, with nobody else in it."""
        folder = self.directory / annotator
        if not folder.exists():
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                for above in (self.directory, self.directory.parent):
                    fsync(above)
        with short_lock(folder / ".lock"):
            if seen is not None and seen != self.mark(annotator):
                raise Outdated(
                    f"{annotator} has judged elsewhere since this page was drawn, such as in "
                    "another window. Nothing was kept: look at what it shows now."
                )
            yield folder

    def _files(self, annotator: str) -> list[Path]:
        return _numbered(self.directory / annotator)

    def _verdict(self, file: Path) -> Annotation | None:
        """None where it was taken back just now."""
        try:
            facts = file.stat()
            key = (str(file), facts.st_mtime_ns, facts.st_ino)
            if key not in self._known:
                self._known[key] = read_verdict(file)
        except (FileNotFoundError, DataError):
            if not file.exists():
                return None
            raise
        return self._known[key]


def read_verdicts(directory: Path) -> list[Annotation]:
    """As `VerdictFolder.read`."""
    return VerdictFolder(directory, 0).read()


def verdict_files(directory: Path) -> list[Path]:
    """All verdicts' files, in the order of annotators and time."""
    folders = sorted(path for path in directory.glob("*") if path.is_dir())
    return [file for folder in folders for file in _numbered(folder)]


def read_verdict(file: Path) -> Annotation:
    """DataError where the file is damaged, or lies in another person's folder."""
    try:
        (verdict,) = annotations_from_table(read_table(file, "annotations"))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} holds no verdict ({error}). Remove it.") from error
    if verdict.annotator != file.parent.name:
        raise DataError(
            f"{file} holds a verdict of {shown(verdict.annotator)}, and lies in the folder of "
            f"{file.parent.name!r}. Move it back, or remove it."
        )
    return verdict


def _numbered(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.parquet") if file.stem.isdecimal())
