"""The whole GPU suite on a CPU with a tiny model: every part runs, its figures hold together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.budget import NAMES
from benchmarks.gpu.report import NO_FIGURE
from benchmarks.gpu.shapes import TINY

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu-suite")


@pytest.fixture(scope="module")
def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--size", "tiny", "--device", "cpu"]
    command += ["--out", str(folder / "out"), "--work", str(folder / "work")]
    # One thread: two wait for each other whenever something else wants the machine.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--budget-seconds", "2400"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(run: subprocess.CompletedProcess[str], folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "out" / "gpu.json").read_text())
    assert run.returncode == 0, (run.stderr, document["parts"])
    return {name: part["figures"] for name, part in document["parts"].items()}


def spreads(value: Any) -> list[dict[str, float]]:
    """All repeated figures below a value."""
    if isinstance(value, list):
        return [each for item in value for each in spreads(item)]
    if not isinstance(value, dict):
        return []
    if "median" in value:
        return [value]
    return [each for item in value.values() for each in spreads(item)]


def test_every_part_is_measured_and_nothing_is_left_out(
    found: dict[str, Any], run: subprocess.CompletedProcess[str], folder: Path
) -> None:
    document = json.loads((folder / "out" / "gpu.json").read_text())
    parts = document["parts"]
    assert set(parts) == {"checkpoint", *NAMES}
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(
        parts, "measured"
    )
    assert [part["left_out"] for part in parts.values()] == [[]] * len(parts)
    assert document["versions"]["torch"]
    assert document["hardware"]["num_cpus"] >= 1
    assert document["hardware"]["gpu"] is None
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["gpu.json", "gpu.log"]
    assert run.stdout.startswith(NO_FIGURE)


def test_repeated_figures_are_positive_and_ordered(found: dict[str, Any]) -> None:
    figures = spreads(found)
    assert len(figures) > 30
    assert all(0 < each["low"] <= each["median"] <= each["high"] for each in figures)
    assert all(each["rounds"] >= 1 for each in figures)


def test_a_decoding_step_reads_more_with_more_sequences(found: dict[str, Any]) -> None:
    rows = found["decode"]["rows"]
    assert [row["batch"] for row in rows] == list(TINY.load.decode_batches)
    assert rows[0]["bytes_per_step"] < rows[1]["bytes_per_step"]
    tokens, image_tokens = found["decode"]["prompt_tokens"], TINY.shape.num_image_tokens
    assert image_tokens < tokens < TINY.shape.max_context_tokens
    assert found["prefill"]["prompt_tokens"] == tokens
    assert found["prefill"]["text"]["share_of_matmul"] > 0


def test_waves_and_levels_grow_the_same_trees(found: dict[str, Any]) -> None:
    waves = found["waves"]
    assert waves["equal_trees_share"] == 1.0
    assert waves["wave_tokens"] <= waves["kv_cache_tokens"] < waves["all_prompts_tokens"]
    assert waves["waves"]["tokens_per_prompt"] == waves["levels"]["tokens_per_prompt"]
    assert waves["stream"]["tokens_per_prompt"] == waves["levels"]["tokens_per_prompt"]
    assert 1 <= waves["prompts_in_stream"] < waves["num_prompts"]


def test_a_cache_that_is_lost_leaves_more_to_compute(found: dict[str, Any]) -> None:
    for part, kept, lost in (
        ("cache", "kept", "lost"), ("waves", "waves", "levels"), ("waves", "stream", "levels"),
    ):  # fmt: skip
        rates = [found[part][name]["hit_rate"] for name in (kept, lost)]
        assert all(0 <= rate["low"] <= rate["high"] <= 1 for rate in rates)
        assert rates[0]["low"] > rates[1]["high"]
        computed = [found[part][name]["computed_tokens_per_prompt"] for name in (kept, lost)]
        assert computed[0]["high"] < computed[1]["low"]
    assert found["cache"]["equal_trees_share"] == 1.0


def test_both_ways_to_update_the_policy_change_what_it_says(found: dict[str, Any]) -> None:
    assert found["reload"]["changed_the_policy"] is True
    assert found["lora"]["load"]["changed_the_policy"] is True
    assert found["lora"]["merged_over_adapter"] > 0


def test_steps_are_measured_with_and_without_checkpointing(found: dict[str, Any]) -> None:
    for way in ("without", "with_checkpointing"):
        assert found["dpo"][way]["seconds_per_pair"] > 0
        assert found["dpo"][way]["reference_seconds_per_pair"] > 0
    assert found["dpo"]["batch"] == TINY.load.dpo_batch_sizes[0]


def test_the_plan_lacks_nothing_and_adds_up(found: dict[str, Any]) -> None:
    assert found["plan"]["not_measured"] == []
    for hours in found["plan"]["hours"].values():
        assert all(value > 0 for value in hours.values())
        assert hours["prefill_waves"] < hours["prefill_levels"] < hours["prefill_none"]
    assert {row["part"] for row in found["memory"]["rows"]} == set(found) - {"memory", "plan"}
    assert all(row["process_bytes"] > 0 for row in found["memory"]["rows"])
