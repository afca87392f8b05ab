"""What is done: one JSON file tells the whole truth of an attempt.

A stage, or one shard of it, is done when its record carries the fingerprint of
today's inputs, configuration, code and seed, and every file it names still has its
checksum. Nothing else, no file's existence and no cache, says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from csr.errors import DataError
from csr.files import file_sha256
from storage.atomic import read_json, short_lock, write_json
from storage.tables import count_rows, table_identity

MANIFEST_VERSION = 1

Status = Literal["running", "suspended", "waiting", "done", "failed", "held", "stale"]
"""`waiting`: people must speak first. `held`: a gate stopped it.
`stale`: built on an attempt that is no longer the current one."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FileRecord(_Record):
    """One file that a stage wrote."""

    path: str
    """Relative to the attempt's directory, so that a run can be moved."""
    sha256: str
    size_bytes: int
    table: str | None = None
    """Name of the table, for a Parquet file of one."""
    schema_version: int | None = None
    rows: int | None = None


class StageRecord(_Record):
    """One stage, or one shard of one, of an attempt."""

    stage: str
    shard: int = 0
    status: Status
    fingerprint: str
    """See `fingerprint`."""
    files: tuple[FileRecord, ...] = ()
    skipped: dict[str, int] = Field(default_factory=dict)
    """`SkipReason` -> count."""
    metrics: dict[str, float] = Field(default_factory=dict)
    message: str = ""
    """Why it failed or was held."""
    started_at: str
    """ISO 8601, UTC."""
    finished_at: str
    seconds: float
    peak_memory_bytes: int | None = None
    """Largest resident set of the process that ran it."""
    packages: dict[str, str] = Field(default_factory=dict)
    """Versions of the engines' packages in the process that ran it."""


class IterationManifest(_Record):
    """One attempt at one iteration."""

    manifest_version: int = MANIFEST_VERSION
    run_id: str
    iteration: int
    attempt: int
    status: Status = "running"
    created_at: str
    """ISO 8601, UTC."""
    config: dict[str, Any]
    """The resolved configuration, overrides of this attempt included."""
    code_version: str
    seed: int
    policy_in: dict[str, Any] | None = None
    """The `PolicyRef` that samples, as a dictionary."""
    policy_out: dict[str, Any] | None = None
    """The `PolicyRef` that training gave."""
    rerun_of: str | None = None
    """The attempt, e.g. "tiny-b0f2/02.1", that this one does over from the same inputs."""
    from_stage: str | None = None
    """The first stage that is done over; what earlier ones made was taken from `rerun_of`."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """The attempt's own figures, e.g. its evaluation."""
    stages: tuple[StageRecord, ...] = ()
    """In the order first recorded; one for each stage and shard."""

    def stage(self, stage: str, shard: int = 0) -> StageRecord | None:
        """The record of one shard of one stage, if there is one."""
        matches = (s for s in self.stages if s.stage == stage and s.shard == shard)
        return next(matches, None)

    def skipped(self) -> dict[str, int]:
        """`SkipReason` -> count over all stages and shards."""
        totals: dict[str, int] = {}
        for stage in self.stages:
            for reason, count in stage.skipped.items():
                totals[reason] = totals.get(reason, 0) + count
        return totals


def fingerprint(**parts: Any) -> str:
    """sha256 over the named parts as canonical JSON: key order does not matter, values do.

    A part that JSON cannot hold raises TypeError; NaN raises ValueError.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def utc_now() -> str:
    """The time, ISO 8601, UTC, to the microsecond."""
    return datetime.now(UTC).isoformat()


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """The manifest of one attempt on disk; safe to use from many processes at once."""

    path: Path

    def read(self) -> IterationManifest:
        """DataError where it is missing, damaged, or of another version."""
        value = read_json(self.path)
        version = value.get("manifest_version")
        if version != MANIFEST_VERSION:
            raise DataError(
                f"{self.path} has manifest version {version}, and this release reads version "
                f"{MANIFEST_VERSION}. Use the release that wrote it."
            )
        try:
            return IterationManifest.model_validate(value)
        except ValidationError as error:
            raise DataError(
                f"{self.path} is damaged: {error}. Restore it from a copy, or make a new attempt."
            ) from error

    def create(self, manifest: IterationManifest) -> None:
        """Write a new attempt's manifest. It must not exist yet."""
        assert not self.path.exists(), self.path
        write_json(self.path, manifest.model_dump(mode="json"))

    def update(self, **fields: Any) -> IterationManifest:
        """Change fields of the attempt, e.g. `status` or `policy_out`; the new manifest."""
        with self._locked():
            return self._replace(fields)

    def record(self, record: StageRecord, files: Sequence[Path] = ()) -> StageRecord:
        """Put a stage's record in, in place of an older one of the same stage and shard.

        Call it last, when `files` (files or directories below the attempt's directory) are
        complete: it takes their checksums.
        """
        described = tuple(describe_file(file, self.path.parent) for file in _expand(files))
        record = record.model_copy(update={"files": (*record.files, *described)})
        with self._locked():
            stages = list(self.read().stages)
            places = {(s.stage, s.shard): place for place, s in enumerate(stages)}
            place = places.get((record.stage, record.shard), len(stages))
            stages[place : place + 1] = [record]
            self._replace({"stages": tuple(stages)})
        return record

    def is_done(self, stage: str, shard: int, fingerprint: str) -> bool:
        """Whether that work need not be repeated: same fingerprint, files intact."""
        record = self.read().stage(stage, shard)
        if record is None or record.status != "done" or record.fingerprint != fingerprint:
            return False
        return not damaged_files(record, self.path.parent)

    def _locked(self) -> Any:
        return short_lock(self.path.with_name(f".{self.path.name}.lock"))

    def _replace(self, fields: dict[str, Any]) -> IterationManifest:
        changed = self.read().model_dump() | fields
        manifest = IterationManifest.model_validate(changed)
        write_json(self.path, manifest.model_dump(mode="json"))
        return manifest


def describe_file(file: Path, directory: Path) -> FileRecord:
    """Path relative to `directory`, checksum, and for a table its name, version and rows."""
    table, version, rows = None, None, None
    if file.suffix == ".parquet":
        table, version = table_identity(file)
        rows = count_rows(file)
    return FileRecord(
        path=file.relative_to(directory).as_posix(),
        sha256=file_sha256(file),
        size_bytes=file.stat().st_size,
        table=table,
        schema_version=version,
        rows=rows,
    )


def _expand(paths: Sequence[Path]) -> list[Path]:
    """Directories as the files below them, in name order, hidden files left out."""
    files = []
    for path in paths:
        below = sorted(path.rglob("*")) if path.is_dir() else [path]
        files += [file for file in below if file.is_file() and not file.name.startswith(".")]
    return files


def damaged_files(record: StageRecord, directory: Path) -> list[str]:
    """What is wrong with a stage's files, one message each; empty when all are intact."""
    return damaged(record.files, directory)


def damaged(files: Sequence[FileRecord], directory: Path) -> list[str]:
    """What is wrong with files below `directory`, one message each."""
    problems = []
    for file in files:
        path = directory / file.path
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif path.stat().st_size != file.size_bytes:
            size = path.stat().st_size
            problems.append(f"{path} has {size:,} bytes, and had {file.size_bytes:,}")
        elif file_sha256(path) != file.sha256:
            problems.append(f"{path} changed after it was written")
    return problems
