"""`csr report`: reads a run from the store and writes its page."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from csr.protocols import Json
from csr.types import Demonstration, PreferencePair, ScoredResponse
from flows import listing
from flows.gating import held_reason, verdicts_of
from flows.home import open_store
from flows.report import render_report
from flows.report_data import (
    ReportData,
    ReportDemonstration,
    ReportExample,
    ReportIteration,
    ReportStage,
)
from storage.atomic import read_json, write_text
from storage.attempt import AttemptDir
from storage.critique import demonstrations_from_table
from storage.lineage import is_held
from storage.manifest import StageRecord
from storage.rows import pairs_from_table
from storage.run_store import RunStore
from storage.tables import read_table, table_files

NUM_EXAMPLES = 8


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
    return ReportData(
        run_id=run_id,
        recipe=record.recipe,
        status=listing.status_now(store, run_id, record.status),
        seed=record.seed,
        iterations=[_iteration(store, store.attempt(run_id, n)) for n in store.iterations(run_id)],
        config=record.config,
        versions={"csr": record.code_version, **record.packages},
        facts={
            "started": record.created_at,
            "machine": platform.platform(),
            "prompts": _prompt_line(listing.prompt_counts(store, run_id)),
        },
        benchmarks={each["name"]: _benchmark_line(each) for each in evaluation},
    )


def _prompt_line(counts: Json) -> str:
    """E.g. "22 used, 2 left out (unreadable_image)"."""
    skipped = [f"{count} left out ({reason})" for reason, count in counts["skipped"].items()]
    return ", ".join([f"{counts['used']} used", *skipped])


def _benchmark_line(settings: Json) -> str:
    tokens = settings.get("max_response_tokens")
    limit = f", at most {tokens} tokens" if tokens else ""
    return f"{settings.get('prompts', settings['name'])}, greedy{limit}"


def _iteration(store: RunStore, attempt: AttemptDir) -> ReportIteration:
    manifest = attempt.manifest.read()
    has_pairs = bool(table_files(attempt.pairs))
    pairs = pairs_from_table(read_table(attempt.pairs, "pairs")) if has_pairs else []
    demonstrations = _demonstrations_of(attempt)
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
        examples=[_example(pair) for pair in pairs[:NUM_EXAMPLES]],
        demonstrations=[_shown(each) for each in some_of_each_kind(demonstrations, NUM_EXAMPLES)],
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


def _example(pair: PreferencePair) -> ReportExample:
    return ReportExample(
        pair_id=pair.pair_id,
        prompt=pair.prompt.text,
        image_path=pair.prompt.image.uri,
        chosen=pair.chosen.text,
        rejected=pair.rejected.text,
        margin=pair.margin,
        chosen_parts=response_parts(pair.chosen),
        rejected_parts=response_parts(pair.rejected),
    )
