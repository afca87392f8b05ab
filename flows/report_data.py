"""What a run's HTML report shows, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from csr.gates import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportStage:
    """One stage, or one shard of it."""

    name: str
    status: str
    seconds: float
    peak_memory_bytes: int | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    """`SkipReason` -> count."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportExample:
    """One preference pair."""

    pair_id: str
    prompt: str
    image_path: str
    chosen: str
    rejected: str
    margin: float
    chosen_parts: Mapping[str, float] = field(default_factory=dict)
    """Name -> value, e.g. `reward` and the breakdown."""
    rejected_parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDemonstration:
    """One response to imitate."""

    demonstration_id: str
    kind: str
    prompt: str
    image_path: str
    text: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportIteration:
    """One iteration; number 0 is the base model's evaluation."""

    iteration: int
    attempt: str
    """E.g. "tiny-4f2a/02.1"."""
    status: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    num_prompts: int = 0
    num_pairs: int = 0
    num_demonstrations: Mapping[str, int] = field(default_factory=dict)
    """Kind -> count."""
    stages: Sequence[ReportStage] = ()
    chosen: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Part -> one value a pair: `reward`, `likelihood`, `image_similarity`, `num_tokens`,
    `num_steps`, ..."""
    rejected: Mapping[str, Sequence[float]] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    """One row a logged optimiser step, with its `step`."""
    examples: Sequence[ReportExample] = ()
    demonstrations: Sequence[ReportDemonstration] = ()
    """Some of them."""
    gates: Sequence[Verdict] = ()
    held: str = ""
    """Why a gate holds it; empty where none does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """All that a run's page shows."""

    run_id: str
    recipe: str
    status: str
    seed: int
    iterations: Sequence[ReportIteration]
    """In order, the base first."""
    config: Mapping[str, Any]
    """The resolved recipe."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package -> version, and what else fixes the result."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """More lines for the head of the page, e.g. when and on what machine it ran."""
    benchmarks: Mapping[str, str] = field(default_factory=dict)
    """Benchmark -> what it asks and its token limit: figures depend on both."""
