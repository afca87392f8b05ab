"""Where a run lies on disk, who may write to it, and which attempt counts.

```
<home>/<run_id>/run.json  prompts.parquet  quarantine.parquet
<home>/<run_id>/prompts-<NN>.parquet  quarantine-<NN>.parquet  (of an iteration with its own)
<home>/<run_id>/iterations/<NN>/current.json
<home>/<run_id>/iterations/<NN>/attempts/<A>/  (see `storage.attempt`)
```
Iteration 00 holds the base model's evaluation. Attempts count from 1; `current.json`
names the one that later iterations build on, and is absent while that is the first.
"""

from __future__ import annotations

import difflib
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from csr.errors import ConfigError, DataError
from storage.atomic import read_json, short_lock, write_json
from storage.attempt import AttemptDir, IterationId, check_run_id
from storage.manifest import (
    FileRecord,
    IterationManifest,
    Status,
    describe_file,
    fingerprint,
    utc_now,
)
from storage.run_lock import is_run_locked, run_lock

RUN_VERSION = 1
OTHER_HOME = "If your runs lie elsewhere, give --home or set CSR_HOME."


class RunRecord(BaseModel):
    """`run.json`: what a run is, fixed when it is prepared; then only `status` changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    run_version: int = RUN_VERSION
    run_id: str
    created_at: str
    """ISO 8601, UTC."""
    recipe: str
    """Name of the recipe it was started from."""
    config: dict[str, Any]
    """The resolved configuration."""
    config_sha256: str
    code_version: str
    seed: int
    packages: dict[str, str] = Field(default_factory=dict)
    """Package -> version at the start."""
    platform: str = ""
    """System and processor of the machine that began it."""
    files: tuple[FileRecord, ...] = ()
    """What every iteration reads: the tables of prompts and of quarantine."""
    status: Status = "running"


@dataclass(frozen=True, slots=True)
class RunStore:
    """All runs below one home directory."""

    home: Path

    def run_path(self, run_id: str) -> Path:
        """The run's directory, whether it exists or not. ConfigError on an unusable name."""
        check_run_id(run_id)
        return self.home / run_id

    def prompts_path(self, run_id: str, iteration: int | None = None) -> Path:
        """The run's `prompts` table, or that of one iteration where it has its own."""
        return self.run_path(run_id) / f"prompts{_own(iteration)}.parquet"

    def quarantine_path(self, run_id: str, iteration: int | None = None) -> Path:
        """The run's `quarantine` table, or that of one iteration's own prompts."""
        return self.run_path(run_id) / f"quarantine{_own(iteration)}.parquet"

    def prompts_paths(self, run_id: str) -> list[Path]:
        """The `prompts` tables that there are, the run's own first."""
        return sorted(self.run_path(run_id).glob("prompts*.parquet"), key=lambda p: p.stem)

    def quarantine_paths(self, run_id: str) -> list[Path]:
        """The `quarantine` tables that there are."""
        return sorted(self.run_path(run_id).glob("quarantine*.parquet"))

    def prompts_of(self, run_id: str, iteration: int) -> Path:
        """The `prompts` table that the iteration reads."""
        own = self.prompts_path(run_id, iteration)
        return own if own.exists() else self.prompts_path(run_id)

    def create_run(
        self,
        run_id: str,
        *,
        recipe: str,
        config: dict[str, Any],
        seed: int,
        code_version: str,
        packages: dict[str, str] | None = None,
        platform: str = "",
    ) -> RunRecord:
        """Start a run, or return the existing one where its configuration and seed are equal.

        `config` must be plain JSON. ConfigError names the keys in which an existing run
        differs.
        """
        path = self.run_path(run_id)
        config = json.loads(json.dumps(config, allow_nan=False))
        with short_lock(path / ".run.json.lock"):
            if (path / "run.json").exists():
                return _same_run(self.run(run_id), config, seed)
            record = RunRecord(
                run_id=run_id,
                created_at=utc_now(),
                recipe=recipe,
                config=config,
                config_sha256=fingerprint(config=config),
                code_version=code_version,
                seed=seed,
                packages=packages or {},
                platform=platform,
            )
            write_json(path / "run.json", record.model_dump(mode="json"))
            return record

    def has_run(self, run_id: str) -> bool:
        """Whether a run of this id was begun."""
        return (self.run_path(run_id) / "run.json").exists()

    def run(self, run_id: str) -> RunRecord:
        """DataError where there is no such run, naming the nearest one."""
        path = self.run_path(run_id) / "run.json"
        if not path.exists():
            raise DataError(f"there is no run {run_id!r} in {self.home}. {self._hint(run_id)}")
        value = read_json(path)
        if value.get("run_version") != RUN_VERSION:
            raise DataError(
                f"{path} has run version {value.get('run_version')}, and this release reads "
                f"version {RUN_VERSION}. Use the release that wrote it."
            )
        try:
            return RunRecord.model_validate(value)
        except ValidationError as error:
            raise DataError(f"{path} is damaged: {error}. Restore it from a copy.") from error

    def set_status(self, run_id: str, status: Status) -> None:
        """Change the run's status."""
        self._update(run_id, status=status)

    def record_files(self, run_id: str, files: tuple[Path, ...]) -> None:
        """Keep the checksums of complete files in the run's directory."""
        described = tuple(describe_file(file, self.run_path(run_id)) for file in files)
        self._update(run_id, files=described)

    def _update(self, run_id: str, **fields: Any) -> None:
        path = self.run_path(run_id)
        with short_lock(path / ".run.json.lock"):
            record = self.run(run_id).model_copy(update=fields)
            write_json(path / "run.json", record.model_dump(mode="json"))

    def runs(self) -> list[RunRecord]:
        """All runs, newest last."""
        names = [path.parent.name for path in self.home.glob("*/run.json")]
        return sorted((self.run(name) for name in names), key=lambda r: (r.created_at, r.run_id))

    def iterations(self, run_id: str) -> list[int]:
        """Iterations that have an attempt, ascending; 0 is the base model's evaluation."""
        found = (self.run_path(run_id) / "iterations").glob("*/attempts/*/manifest.json")
        return sorted({int(name) for m in found if (name := m.parents[2].name).isdecimal()})

    def attempts(self, run_id: str, iteration: int) -> list[int]:
        """The iteration's attempts, ascending."""
        found = self._iteration_path(run_id, iteration).glob("attempts/*/manifest.json")
        return sorted(int(name) for m in found if (name := m.parent.name).isdecimal())

    def attempt(self, run_id: str, iteration: int, attempt: int | None = None) -> AttemptDir:
        """An existing attempt; None is the current one. DataError where there is none."""
        self.run(run_id)
        known = self.attempts(run_id, iteration)
        number = self.current_attempt(run_id, iteration) if attempt is None else attempt
        if number is None or number not in known:
            asked = IterationId(run_id, iteration, attempt)
            attempts = f", and this one the attempts {known}" if known else ""
            raise DataError(
                f"there is no {asked}. The run has the iterations {self.iterations(run_id)}"
                f"{attempts}."
            )
        return self._attempt_dir(run_id, iteration, number)

    def new_attempt(
        self, run_id: str, iteration: int, *, config: dict[str, Any] | None = None, **fields: Any
    ) -> AttemptDir:
        """The next attempt, with its manifest.

        `config` differs from the run's where this attempt overrides it. `fields` are further
        fields of `IterationManifest`, e.g. `policy_in`.
        """
        run = self.run(run_id)
        path = self._iteration_path(run_id, iteration)
        with short_lock(path / ".attempts.lock"):
            number = max(self.attempts(run_id, iteration), default=0) + 1
            attempt = self._attempt_dir(run_id, iteration, number)
            values = {
                "run_id": run_id,
                "iteration": iteration,
                "attempt": number,
                "created_at": utc_now(),
                "config": run.config if config is None else config,
                "code_version": run.code_version,
                "seed": run.seed,
            }
            attempt.manifest.create(IterationManifest.model_validate(values | fields))
        return attempt

    def current_attempt(self, run_id: str, iteration: int) -> int | None:
        """The attempt that later iterations build on; None before the first."""
        path = self.current_path(run_id, iteration)
        if path.exists():
            number = read_json(path).get("attempt")
            if type(number) is not int:
                raise DataError(
                    f"{path} is damaged: it names no attempt. Restore it from a copy, or say "
                    "which one counts with csr promote."
                )
            return number
        return min(self.attempts(run_id, iteration), default=None)

    def set_current(
        self, run_id: str, iteration: int, attempt: int, *, promoted: bool = False
    ) -> None:
        """Make an existing attempt the one that later iterations build on.

        `promoted`: a person said so, whatever a gate thinks of it.
        """
        assert attempt in self.attempts(run_id, iteration), (run_id, iteration, attempt)
        value = {"attempt": attempt} | ({"promoted": True} if promoted else {})
        write_json(self.current_path(run_id, iteration), value)

    def lock(self, run_id: str) -> AbstractContextManager[None]:
        """Be the only process that works on an existing run. EnvironmentFault where one is."""
        self.run(run_id)
        return run_lock(self.run_path(run_id))

    def is_locked(self, run_id: str) -> bool:
        """Whether a process works on the run now."""
        return is_run_locked(self.run_path(run_id))

    def current_path(self, run_id: str, iteration: int) -> Path:
        """Names the current attempt, where that is not simply the first."""
        return self._iteration_path(run_id, iteration) / "current.json"

    def _iteration_path(self, run_id: str, iteration: int) -> Path:
        return self.run_path(run_id) / "iterations" / f"{iteration:02d}"

    def _attempt_dir(self, run_id: str, iteration: int, attempt: int) -> AttemptDir:
        path = self._iteration_path(run_id, iteration) / "attempts" / str(attempt)
        return AttemptDir(IterationId(run_id, iteration, attempt), path)

    def _hint(self, run_id: str) -> str:
        names = sorted(path.parent.name for path in self.home.glob("*/run.json"))
        near = difflib.get_close_matches(run_id, names, n=1)
        if near:
            return f"Did you mean {near[0]!r}?"
        if names:
            return f"It has {', '.join(names)}."
        return f"It has no run at all. {OTHER_HOME}"


def _own(iteration: int | None) -> str:
    return "" if iteration is None else f"-{iteration:02d}"


def _same_run(existing: RunRecord, config: dict[str, Any], seed: int) -> RunRecord:
    """The existing run, where it is the one that is asked for."""
    if existing.config_sha256 == fingerprint(config=config) and existing.seed == seed:
        return existing
    differences = differing_settings(
        existing.config | {"seed": existing.seed}, config | {"seed": seed}
    )
    changes = ", ".join(f"{key}: {old} -> {new}" for key, (old, new) in differences.items())
    raise ConfigError(
        f"run {existing.run_id!r} exists with another configuration ({changes}). Choose another "
        "run ID, or go back to the configuration it was started with."
    )


def differing_settings(one: dict[str, Any], other: dict[str, Any]) -> dict[str, list[Any]]:
    """Dotted key -> both values, where nested dictionaries differ; "unset" where one has none."""
    left, right = _flat(one), _flat(other)
    absent = object()
    return {
        key: [left.get(key, "unset"), right.get(key, "unset")]
        for key in sorted(left.keys() | right.keys())
        if left.get(key, absent) != right.get(key, absent)
    }


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
