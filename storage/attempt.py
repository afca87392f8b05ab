"""The name and the directory of one attempt at one iteration.

```
manifest.json  nodes/  verdicts/  annotations/  responses/  pairs/ or demonstrations/
policy/  evaluation/  logs/
```
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from csr.errors import ConfigError
from storage.manifest import ManifestFile

RUN_ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

_RUN_ID = re.compile(RUN_ID_PATTERN)
_ITERATION_ID = re.compile(rf"(?P<run>{RUN_ID_PATTERN})/(?P<iteration>\d+)(\.(?P<attempt>\d+))?")


@dataclass(frozen=True, slots=True)
class IterationId:
    """`tiny-b0f2/02` or, with an attempt, `tiny-b0f2/02.1`."""

    run_id: str
    iteration: int
    attempt: int | None = None

    def __str__(self) -> str:
        """The ID as the command line takes it."""
        suffix = "" if self.attempt is None else f".{self.attempt}"
        return f"{self.run_id}/{self.iteration:02d}{suffix}"


def parse_iteration_id(text: str) -> IterationId:
    """ConfigError where `text` is no iteration ID."""
    match = _ITERATION_ID.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"{text!r} is not an iteration ID. Write RUN/NN, or RUN/NN.A for one attempt, e.g. "
            "tiny-b0f2/02 or tiny-b0f2/02.1."
        )
    attempt = match["attempt"]
    return IterationId(match["run"], int(match["iteration"]), int(attempt) if attempt else None)


def check_run_id(text: str) -> None:
    """ConfigError where `text` cannot name a run; one that names an iteration is told as such."""
    if match := _ITERATION_ID.fullmatch(text):
        raise ConfigError(
            f"{text!r} is an iteration, and a run is wanted here: {match['run']}. "
            f"`csr show {text}` shows the iteration."
        )
    if not _RUN_ID.fullmatch(text):
        raise ConfigError(
            f"{text!r} cannot name a run. Use up to 64 letters, digits, '.', '_' and '-', "
            "starting with a letter or digit."
        )


@dataclass(frozen=True, slots=True)
class AttemptDir:
    """One attempt's directory. Tables are directories of shards, `<table>/00000.parquet`."""

    id: IterationId
    path: Path

    @property
    def number(self) -> int:
        """Which attempt it is, from 1."""
        assert self.id.attempt is not None, self.id
        return self.id.attempt

    @property
    def manifest(self) -> ManifestFile:
        """What is done in this attempt."""
        return ManifestFile(self.path / "manifest.json")

    @property
    def nodes(self) -> Path:
        """Shards of the `nodes` table."""
        return self.path / "nodes"

    @property
    def responses(self) -> Path:
        """Shards of the `responses` table."""
        return self.path / "responses"

    @property
    def pairs(self) -> Path:
        """Shards of the `pairs` table."""
        return self.path / "pairs"

    @property
    def demonstrations(self) -> Path:
        """Shards of the `demonstrations` table."""
        return self.path / "demonstrations"

    @property
    def annotations(self) -> Path:
        """Shards of the `annotations` table: what pairing goes by."""
        return self.path / "annotations"

    @property
    def verdicts(self) -> Path:
        """What people have said so far, one folder an annotator."""
        return self.path / "verdicts"

    @property
    def policy(self) -> Path:
        """The trained policy."""
        return self.path / "policy"

    @property
    def checkpoints(self) -> Path:
        """What training keeps until it is done; the dot hides it from the manifest."""
        return self.path / ".checkpoints"

    @property
    def evaluation(self) -> Path:
        """Of each benchmark a `generations` and an `outcomes` file, its responses as JSON where its
        field has a form for that, their false words where it knows them, and what the benchmarks
        report.
        """
        return self.path / "evaluation"

    def outcomes(self, benchmark: str) -> Path:
        """Each response's part in the benchmark's figures."""
        return self.evaluation / f"{benchmark}.outcomes.parquet"

    def response_records(self, benchmark: str) -> Path:
        """The responses in the benchmark's own form, as other people's tools read them."""
        return self.evaluation / f"{benchmark}.responses.json"

    def false_mentions(self, benchmark: str) -> Path:
        """Prompt id -> the words of its response that the image contradicts."""
        return self.evaluation / f"{benchmark}.false_mentions.json"

    @property
    def conditions(self) -> Path:
        """Under which conditions the figures hold: prompts, images, token limit."""
        return self.evaluation / "conditions.json"

    @property
    def logs(self) -> Path:
        """What engines printed, one file a stage, where stages run in child processes."""
        return self.path / "logs"
