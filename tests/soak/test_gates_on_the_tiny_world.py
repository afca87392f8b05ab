"""Gates on real runs of the embedded world: healthy ones pass, silence for CHAIR is held."""

from pathlib import Path
from typing import Any

import pytest

from csr.errors import RunFailed
from flows import environment
from flows.cli import DEMO_RECIPE
from flows.forms import RunRequest
from flows.gating import verdicts_of
from storage.run_store import RunStore

RUN = "judged"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    environment.apply(tmp_path, offline=True)
    return tmp_path


def run(home: Path, *settings: str) -> None:
    from flows.command import run as run_recipe

    run_recipe(RunRequest(home=str(home), recipe=str(DEMO_RECIPE), run_id=RUN, settings=settings))


def shares_of_limits(home: Path, iteration: int) -> dict[str, float]:
    """Gate -> how much of its limit was used up; above 1 it trips."""
    verdicts = verdicts_of(RunStore(home).attempt(RUN, iteration))
    return {
        v.gate: v.value / v.limit if v.gate != "margin_share" else v.limit / v.value
        for v in verdicts
        if v.value and v.limit
    }


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_a_healthy_run_trips_no_gate(home: Path, seed: int, record_property: Any) -> None:
    run(home, f"seed={seed}")
    store = RunStore(home)
    assert store.run(RUN).status == "done"
    for iteration in (1, 2, 3):
        shares = shares_of_limits(home, iteration)
        print(f"seed {seed}, iteration {iteration}:", {k: round(v, 2) for k, v in shares.items()})
        assert store.attempt(RUN, iteration).manifest.read().status == "done"
        assert len(verdicts_of(store.attempt(RUN, iteration))) == 16


@pytest.mark.parametrize("seed", [11, 12])
def test_chair_bought_with_silence_is_held(home: Path, seed: int) -> None:
    with pytest.raises(RunFailed, match="recall_drop is"):
        run(home, f"seed={seed}", "reward.image_weight=0.0", "num_iterations=2")
    attempt = RunStore(home).attempt(RUN, 2)
    metrics, base = (RunStore(home).attempt(RUN, n).manifest.read().metrics for n in (2, 0))
    print(f"seed {seed}: chair_s {base['chair_s']:.3f} -> {metrics['chair_s']:.3f}, recall "
          f"{base['recall']:.3f} -> {metrics['recall']:.3f}")  # fmt: skip
    assert metrics["chair_s"] < base["chair_s"]  # by CHAIR alone it would pass for a success
    assert attempt.manifest.read().status == "held"
