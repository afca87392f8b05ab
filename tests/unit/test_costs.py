"""What a run spent, by hand."""

from pathlib import Path

from flows.costs import costs_up_to
from storage.manifest import IterationManifest, StageRecord
from storage.run_store import RunStore
from tests.scripted_run import Csr, finished_home

NOW = "2026-01-01T00:00:00+00:00"


def stage(name: str, seconds: float, status: str = "done", **metrics: float) -> StageRecord:
    return StageRecord.model_validate(
        {
            "stage": name, "status": status, "fingerprint": "f", "metrics": metrics,
            "seconds": seconds, "started_at": NOW, "finished_at": NOW,
        }
    )  # fmt: skip


def manifest(*stages: StageRecord) -> IterationManifest:
    return IterationManifest(
        run_id="r", iteration=1, attempt=1, created_at=NOW, config={}, code_version="1", seed=1,
        stages=stages,
    )  # fmt: skip


def test_costs_add_up_over_iterations_and_leave_evaluation_out() -> None:
    one = manifest(
        stage("measure", 1.0, num_generated_tokens=10, num_prompt_tokens=40),
        stage("sample", 2.0, num_generated_tokens=30, num_prompt_tokens=60),
        stage("train", 4.0, num_steps=8),
        stage("evaluate", 100.0, num_generated_tokens=1000),
    )
    two = manifest(
        stage("sample", 1.0, num_generated_tokens=5),
        stage("review", 0.5, num_human_verdicts=7),
        stage("train", 50.0, "failed", num_steps=9),
    )
    first, second = costs_up_to([one, two])
    assert first == {
        "spent_seconds": 7.0,
        "spent_generated_tokens": 40.0,
        "spent_prompt_tokens": 100.0,
        "spent_optimizer_steps": 8.0,
        "spent_human_verdicts": 0.0,
    }
    assert second["spent_seconds"] == 8.5
    assert second["spent_generated_tokens"] == 45.0
    assert second["spent_human_verdicts"] == 7.0


def test_a_run_keeps_what_its_sampler_did(csr: Csr, tmp_path: Path) -> None:
    store = RunStore(finished_home(csr, tmp_path, "mine"))
    sampled = [s for s in store.attempt("mine", 1).manifest.read().stages if s.stage == "sample"]
    kept = sum(stage.metrics["num_sampled_tokens"] for stage in sampled)
    assert sum(stage.metrics["num_generated_tokens"] for stage in sampled) >= kept > 0
