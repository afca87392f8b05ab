"""What of a run a tracker is told, as its manifests, tables and histories have it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from csr.tracking import Point, Track, Tracker
from flows.figures import shard_figures, sum_counts
from flows.gating import verdicts_of
from storage.atomic import read_json
from storage.attempt import AttemptDir
from storage.manifest import IterationManifest, StageRecord
from storage.run_store import RunStore
from storage.tables import table_files

if TYPE_CHECKING:
    import pyarrow as pa

QUANTILES = {"min": 0.0, "p25": 0.25, "p50": 0.5, "p75": 0.75, "max": 1.0}

DISTRIBUTIONS = (
    ("responses", ("reward", "num_tokens")),
    ("pairs", ("margin", "chosen_reward", "rejected_reward")),
    ("demonstrations", ("weight",)),
)
"""Tables that pairing leaves, and the columns whose distribution is told."""

SHARDED = "sample"
"""The stage whose records follow each other, one a shard."""

GB = 1e9


def log_run(store: RunStore, run_id: str, tracker: Tracker) -> int:
    """Tell all that there is of a run; how many figures were new."""
    return sum(
        log_attempt(store.attempt(run_id, iteration, number), tracker)
        for iteration in store.iterations(run_id)
        for number in store.attempts(run_id, iteration)
    )


def log_attempt(attempt: AttemptDir, tracker: Tracker) -> int:
    """Tell all that there is of one attempt; how many figures were new."""
    return sum(tracker.log(track, points) for track, points in tracks_of(attempt))


def tracks_of(attempt: AttemptDir) -> Iterator[tuple[Track, list[Point]]]:
    """The attempt's figures, then the curves of its training, with the track of each.

    First attempts share the run's own track; every other has one beside it, so that a number of
    the axis stands for one attempt. Stages that are not done are told nothing of.
    """
    manifest = attempt.manifest.read()
    run_id, label = attempt.id.run_id, f"{attempt.id.iteration:02d}.{attempt.number}"
    part = "" if attempt.number == 1 else label
    figures = attempt_figures(attempt, manifest)
    if figures:
        track = Track(run_id=run_id, part=part, settings=manifest.config)
        yield track, [Point(number=attempt.id.iteration, figures=figures)]
    training = manifest.stage("train")
    if training is not None and training.status == "done":
        track = Track(
            run_id=run_id,
            part=f"{label}-training",
            axis="optimizer_step",
            settings=manifest.config,
        )
        yield track, training_curves(attempt)


def attempt_figures(attempt: AttemptDir, manifest: IterationManifest) -> dict[str, float]:
    """Name of a figure, such as `evaluate/chair_s` -> value, of the stages that are done."""
    by_stage: dict[str, list[StageRecord]] = {}
    for record in manifest.stages:
        by_stage.setdefault(record.stage, []).append(record)
    done = [stage for stage, records in by_stage.items() if _is_done(records)]
    if done and done[-1] == SHARDED:
        done.pop()  # more shards may follow, until another stage does
    figures: dict[str, float] = {}
    for stage in done:
        figures |= {f"{stage}/{name}": x for name, x in stage_figures(by_stage[stage]).items()}
    if "pair" in done:
        figures |= _distributions(attempt)
    if "gate" in done:
        verdicts = verdicts_of(attempt)
        figures |= {f"gate/{each.gate}_tripped": float(each.tripped) for each in verdicts}
    return figures


def stage_figures(records: Sequence[StageRecord]) -> dict[str, float]:
    """Seconds, memory, figures and skips of a stage: of several shards, the counts added up."""
    figures = {"seconds": sum(record.seconds for record in records)}
    peaks = [record.peak_memory_bytes for record in records if record.peak_memory_bytes]
    if peaks:
        figures["peak_memory_gb"] = max(peaks) / GB
    figures |= shard_figures([record.metrics for record in records])
    for reason, count in sum_counts(record.skipped for record in records).items():
        figures[f"skipped_{reason}"] = count
    return figures


def training_curves(attempt: AttemptDir) -> list[Point]:
    """One point an optimiser step: loss, margins, accuracies, gradient norm, as the trainer has."""
    history = read_json(attempt.policy / "history.json")["history"]
    return [
        Point(
            number=int(row["step"]),
            figures={
                f"train/{name}": float(value)
                for name, value in row.items()
                if name != "step" and isinstance(value, int | float)
            },
        )
        for row in history
        if "step" in row
    ]


def _is_done(records: Sequence[StageRecord]) -> bool:
    return all(record.status == "done" for record in records)


def _distributions(attempt: AttemptDir) -> dict[str, float]:
    """How rewards, lengths and margins are spread, e.g. `responses/reward_p50`."""
    import pyarrow.parquet as pq

    figures: dict[str, float] = {}
    for table, columns in DISTRIBUTIONS:
        files = table_files(attempt.path / table)
        if not files:
            continue
        rows = pq.read_table(files, columns=list(columns))  # no images
        for column in columns:
            parts = spread(rows.column(column).drop_null())
            figures |= {f"{table}/{column}_{name}": x for name, x in parts.items()}
    return figures


def spread(values: pa.ChunkedArray) -> dict[str, float]:
    """Mean, population standard deviation and `QUANTILES`; nothing of no values."""
    import pyarrow.compute as pc

    if not len(values):
        return {}
    quantiles = pc.quantile(values, q=list(QUANTILES.values())).to_pylist()
    moments = {"mean": pc.mean(values).as_py(), "sd": pc.stddev(values).as_py()}
    return moments | dict(zip(QUANTILES, quantiles, strict=True))
