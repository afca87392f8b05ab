"""What a run's HTML report shows, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from csr.gates import Verdict
from csr.truthfulness import FalseMention
from flows.tree_view import TreeNode

Marks = Sequence[FalseMention] | None
"""The false words of a text; None where nobody can tell."""


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
    prompt_id: str = ""
    source: str = ""
    chosen_marks: Marks = None
    rejected_marks: Marks = None
    rejected_image: str = ""
    """What the rejected side saw, where that is another image or a corruption of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportTree:
    """One prompt's search."""

    prompt_id: str
    prompt: str
    image_path: str
    roots: Sequence[TreeNode]
    num_nodes: int
    num_kept: int
    num_left_out: int = 0
    """Pruned nodes that are not shown."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """ "chosen" and "rejected" of the prompt's first pair; empty where it has none."""
    num_pairs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAnswer:
    """What one iteration's policy says of a held-out image."""

    iteration: int
    text: str
    marks: Marks = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportCase:
    """One held-out image, and what the policies say of it, in order."""

    outcome: str
    """Of `ReportComparison.outcomes`; "" where nobody can tell."""
    prompt_id: str
    prompt: str
    image_path: str
    answers: Sequence[ReportAnswer]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportComparison:
    """A benchmark's responses, iteration against iteration."""

    benchmark: str
    num_responses: int
    """Compared in all."""
    outcomes: Mapping[str, int]
    """Outcome -> number of images whose responses are marked; empty without ground truth."""
    cases: Sequence[ReportCase]
    """Some of them."""

    @property
    def num_marked(self) -> int:
        """Images with an outcome."""
        return sum(self.outcomes.values())


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
    """E.g. "tiny-b0f2/02.1"."""
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
    """Some of the pairs."""
    trees: Sequence[ReportTree] = ()
    """Some of the searches."""
    num_trees: int = 0
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
    base_name: str = "base"
    """How iteration 0 is called."""
    config: Mapping[str, Any]
    """The resolved recipe."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package -> version, and what else fixes the result."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """More lines for the head of the page, e.g. when and on what machine it began."""
    comparisons: Sequence[ReportComparison] = ()
    truth_problems: Sequence[str] = ()
    """Why ground truth that the recipe names is not used."""
    benchmarks: Mapping[str, str] = field(default_factory=dict)
    """Benchmark -> what it asks and its token limit: figures depend on both."""
