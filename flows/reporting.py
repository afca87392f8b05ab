"""`csr report`: reads a run from the store and writes its page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from csr.protocols import Json
from csr.types import Demonstration, PreferencePair, ScoredResponse
from flows import listing
from flows.base_name import base_name
from flows.gating import held_reason, verdicts_of
from flows.home import open_store
from flows.report import render_report
from flows.report_captions import comparisons
from flows.report_data import (
    ReportData,
    ReportDemonstration,
    ReportExample,
    ReportIteration,
    ReportStage,
)
from flows.report_trees import trees_of
from flows.spreading import spread
from flows.truth import Truth, truth_of
from storage.atomic import read_json, write_text
from storage.attempt import AttemptDir
from storage.critique import demonstrations_from_table
from storage.lineage import is_held
from storage.manifest import StageRecord
from storage.rows import pairs_from_table
from storage.run_store import RunStore
from storage.tables import read_table, table_files

NUM_DEMONSTRATIONS = 8
MAX_EXAMPLES = 180
"""Pairs on the page, shared among the iterations."""
MAX_TREES = 24
NUM_TREES = 4
"""Of an iteration, where there are few iterations."""


def write_report(home: Path, run_id: str, output: Path | None = None) -> Path:
    """Write the run's page to `output` (by default into the run's folder) and return its path."""
    store = open_store(home)
    path = output or store.run_path(run_id) / "report.html"
    write_text(path, render_report(report_data(store, run_id)))
    return path


def report_data(store: RunStore, run_id: str) -> ReportData:
    """All that the page shows. DataError where there is no such run."""
    record = store.run(run_id)
    evaluation: list[Json] = record.config.get("evaluation", [])
    truth = truth_of(record.config)
    attempts = [store.attempt(run_id, number) for number in store.iterations(run_id)]
    num_trained = max(len(attempts) - 1, 1)
    share = _Share(
        examples=max(MAX_EXAMPLES // num_trained, 1),
        trees=min(NUM_TREES, max(MAX_TREES // num_trained, 1)),
    )
    return ReportData(
        run_id=run_id,
        recipe=record.recipe,
        status=listing.status_now(store, run_id, record.status),
        seed=record.seed,
        iterations=[_iteration(store, attempt, truth, share) for attempt in attempts],
        base_name=base_name(record.config),
        config=record.config,
        versions={"csr": record.code_version, **record.packages},
        facts={
            "started": record.created_at,
            **({"begun on": record.platform} if record.platform else {}),
            "prompts": _prompt_line(listing.prompt_counts(store, run_id)),
        },
        comparisons=comparisons(attempts, [each["name"] for each in evaluation]),
        truth_problems=truth.problems,
        benchmarks={each["name"]: _benchmark_line(each) for each in evaluation},
    )


@dataclass(frozen=True, slots=True)
class _Share:
    """How many of each an iteration may show."""

    examples: int
    trees: int


def _prompt_line(counts: Json) -> str:
    """E.g. "22 used, 2 left out (unreadable_image)"."""
    skipped = [f"{count} left out ({reason})" for reason, count in counts["skipped"].items()]
    return ", ".join([f"{counts['used']} used", *skipped])


def _benchmark_line(settings: Json) -> str:
    tokens = settings.get("max_response_tokens")
    limit = f", at most {tokens} tokens" if tokens else ""
    return f"{Path(settings.get('prompts') or settings['name']).name}, greedy{limit}"


def _iteration(
    store: RunStore, attempt: AttemptDir, truth: Truth, share: _Share
) -> ReportIteration:
    manifest = attempt.manifest.read()
    has_pairs = bool(table_files(attempt.pairs))
    pairs = pairs_from_table(read_table(attempt.pairs, "pairs")) if has_pairs else []
    demonstrations = _demonstrations_of(attempt)
    trees, num_trees = trees_of(store, attempt, truth, share.trees)
    pairing = manifest.stage("pair")
    figures = pairing.metrics if pairing else {}
    return ReportIteration(
        iteration=manifest.iteration,
        attempt=str(attempt.id),
        status=listing.attempt_status(store, manifest),
        metrics=manifest.metrics,
        num_prompts=int(figures.get("num_prompts", 0)),
        num_pairs=int(figures.get("num_pairs", 0)),
        num_demonstrations=Counter(each.kind for each in demonstrations),
        stages=[_stage(stage) for stage in manifest.stages],
        chosen=_parts_of_all([pair.chosen for pair in pairs]),
        rejected=_parts_of_all([pair.rejected for pair in pairs]),
        history=_history(attempt),
        examples=[_example(pair, truth) for pair in spread_by_margin(pairs, share.examples)],
        trees=trees,
        num_trees=num_trees,
        demonstrations=[
            _shown(each) for each in some_of_each_kind(demonstrations, NUM_DEMONSTRATIONS)
        ],
        gates=verdicts_of(attempt),
        held=held_reason(attempt) if is_held(store, manifest) else "",
    )


def _stage(stage: StageRecord) -> ReportStage:
    return ReportStage(
        name=stage.stage,
        status=stage.status,
        seconds=stage.seconds,
        peak_memory_bytes=stage.peak_memory_bytes,
        skipped=stage.skipped,
        metrics={} if stage.stage == "evaluate" else stage.metrics,
        message=stage.message,
    )


def response_parts(response: ScoredResponse) -> dict[str, float]:
    """The figures of one side of a pair, e.g. `reward`, `likelihood`, `num_tokens`."""
    return {
        "reward": response.reward,
        **response.breakdown,
        "num_tokens": response.num_tokens,
        "num_steps": response.num_steps,
    }


def _parts_of_all(responses: list[ScoredResponse]) -> dict[str, list[float]]:
    parts: dict[str, list[float]] = {}
    for response in responses:
        for name, value in response_parts(response).items():
            parts.setdefault(name, []).append(value)
    return parts


def _history(attempt: AttemptDir) -> list[dict[str, float]]:
    path = attempt.policy / "history.json"
    if not path.exists():
        return []
    history: Any = read_json(path)["history"]
    return list(history)


def _demonstrations_of(attempt: AttemptDir) -> list[Demonstration]:
    if not table_files(attempt.demonstrations):
        return []
    return demonstrations_from_table(read_table(attempt.demonstrations, "demonstrations"))


def some_of_each_kind(demonstrations: Sequence[Demonstration], count: int) -> list[Demonstration]:
    """`count` at most, taken from the kinds in turn, each kind in stored order."""
    kinds: dict[str, list[Demonstration]] = {}
    for each in demonstrations:
        kinds.setdefault(each.kind, []).append(each)
    rounds = zip_longest(*kinds.values())
    return [each for turn in rounds for each in turn if each is not None][:count]


def _shown(demonstration: Demonstration) -> ReportDemonstration:
    return ReportDemonstration(
        demonstration_id=demonstration.demonstration_id,
        kind=demonstration.kind,
        prompt=demonstration.prompt.text,
        image_path=demonstration.prompt.image.uri,
        text=demonstration.text,
        weight=demonstration.weight,
    )


def spread_by_margin(pairs: Sequence[PreferencePair], count: int) -> list[PreferencePair]:
    """`count` at most, evenly from the widest to the narrowest margin, in that order."""
    ranked = sorted(pairs, key=lambda pair: -pair.margin)
    return [ranked[place] for place in spread(len(ranked), count)]


def _example(pair: PreferencePair, truth: Truth) -> ReportExample:
    image, other = pair.prompt.image, pair.rejected_image
    seen = [part for part in (other.uri, other.corruption) if part] if other else []
    return ReportExample(
        pair_id=pair.pair_id,
        prompt_id=pair.prompt.prompt_id,
        prompt=pair.prompt.text,
        image_path=image.uri,
        chosen=pair.chosen.text,
        rejected=pair.rejected.text,
        margin=pair.margin,
        source=pair.source,
        chosen_parts=response_parts(pair.chosen),
        rejected_parts=response_parts(pair.rejected),
        chosen_marks=truth.marks(pair.chosen.text, image.uri, pair.prompt.prompt_id),
        rejected_marks=truth.marks(pair.rejected.text, image.uri, pair.prompt.prompt_id),
        rejected_image=", ".join(seen),
    )
