"""What a tracker is told of a run, and that each point stands there once."""

import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from csr.tracking import Point, Track, new_points
from flows.tracked import log_run, spread, stage_figures, tracks_of
from storage.manifest import StageRecord
from storage.run_store import RunStore
from tests.scripted_run import Csr, finished_home

RUN = "mine"


class Listening:
    """A tracker that keeps what it is told."""

    shown_by = "nothing"

    def __init__(self) -> None:
        self.told: dict[str, dict[str, list[int]]] = {}

    def log(self, track: Track, points: Sequence[Point]) -> int:
        mine = self.told.setdefault(track.track_id, {})
        new = new_points(points, mine)
        for point in new:
            for name in point.figures:
                mine.setdefault(name, []).append(point.number)
        return sum(len(point.figures) for point in new)

    def close(self) -> None:
        pass


def record(shard: int, seconds: float, peak: int, status: str = "done", **fields: object) -> object:
    return StageRecord.model_validate(
        {
            "stage": "sample",
            "shard": shard,
            "status": status,
            "fingerprint": "f",
            "started_at": "",
            "finished_at": "",
            "seconds": seconds,
            "peak_memory_bytes": peak,
            **fields,
        }
    )


def test_shards_are_told_as_one_stage() -> None:
    one = record(
        0,
        2.0,
        3_000_000_000,
        metrics={"num_nodes": 5, "share": 0.5, "x_count": 2},
        skipped={"a": 1},
    )
    two = record(
        1,
        3.0,
        2_000_000_000,
        metrics={"num_nodes": 7, "share": 1.0, "x_count": 3},
        skipped={"a": 2},
    )
    assert stage_figures([one, two]) == {  # type: ignore[list-item]
        "seconds": 5.0,
        "peak_memory_gb": 3.0,
        "x_count": 5,
        "num_nodes": 12,
        "share": 0.75,
        "skipped_a": 3,
    }


def test_a_distribution_is_told_by_moments_and_quantiles() -> None:
    told = spread(pa.chunked_array([[1.0, 2.0], [3.0, 10.0]]))
    assert told == {
        "mean": 4.0,
        "sd": pytest.approx(math.sqrt(12.5)),  # (9 + 4 + 1 + 36) / 4
        "min": 1.0,
        "p25": 1.75,
        "p50": 2.5,
        "p75": 4.75,
        "max": 10.0,
    }
    assert spread(pa.chunked_array([[]], type=pa.float64())) == {}


def test_only_what_is_not_there_is_new() -> None:
    points = [Point(number=1, figures={"a": 1.0, "b": 2.0}), Point(number=2, figures={"a": 3.0})]
    assert new_points(points, {}) == points
    assert new_points(points, {"a": [1, 2]}) == [Point(number=1, figures={"b": 2.0})]
    assert new_points(points, {"a": {1, 2}, "b": {1}}) == []


def test_a_run_is_told_once(csr: Csr, tmp_path: Path) -> None:
    home = finished_home(csr, tmp_path, RUN)
    store, tracker = RunStore(home), Listening()
    num_new = log_run(store, RUN, tracker)
    assert num_new == sum(len(n) for names in tracker.told.values() for n in names.values())
    assert tracker.told.keys() == {RUN, f"{RUN}-01.1-training", f"{RUN}-02.1-training"}
    own = tracker.told[RUN]
    assert own["evaluate/mean_response_tokens"] == own["gate/seconds"] == [0, 1, 2]
    for name in (
        "measure/seconds", "sample/num_nodes", "sample/peak_memory_gb", "pair/num_pairs",
        "responses/reward_p50", "pairs/margin_mean", "pairs/rejected_reward_max", "train/loss",
    ):  # fmt: skip
        assert own[name] == [1, 2], name
    assert log_run(store, RUN, tracker) == 0

    assert csr("rerun", f"{RUN}/01", "--home", home, "--from", "pair").status == 0
    assert log_run(store, RUN, tracker) > 0
    again = tracker.told[f"{RUN}-01.2"]
    assert again["pair/num_pairs"] == again["evaluate/mean_response_tokens"] == [1]
    assert tracker.told[RUN] == own
    assert log_run(store, RUN, tracker) == 0


def test_shards_that_may_still_follow_are_waited_for(csr: Csr, tmp_path: Path) -> None:
    home = finished_home(csr, tmp_path, RUN)
    attempt = RunStore(home).attempt(RUN, 1)
    stages = attempt.manifest.read().stages
    names = [each.stage for each in stages]

    def told(num_stages: int) -> set[str]:
        attempt.manifest.update(stages=stages[:num_stages])
        return {
            name.partition("/")[0]
            for track, points in tracks_of(attempt)
            for point in points
            for name in point.figures
            if track.axis == "iteration"
        }

    assert names[:5] == ["measure", "sample", "sample", "sample", "pair"]
    assert told(1) == told(2) == told(4) == {"measure"}
    assert told(5) == {"measure", "sample", "pair", "responses", "pairs"}


def test_a_failed_stage_is_told_nothing_of(csr: Csr, tmp_path: Path) -> None:
    home = finished_home(csr, tmp_path, RUN)
    attempt = RunStore(home).attempt(RUN, 1)
    stages = attempt.manifest.read().stages
    failed = tuple(
        each.model_copy(update={"status": "failed"}) if each.stage == "train" else each
        for each in stages
    )
    attempt.manifest.update(stages=failed)
    [(track, [point])] = list(tracks_of(attempt))
    assert track.axis == "iteration"
    assert "train/seconds" not in point.figures
    assert "evaluate/seconds" in point.figures
