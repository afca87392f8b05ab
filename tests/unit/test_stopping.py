"""Runs that end early, since nothing more is gained."""

from pathlib import Path

import pytest

from csr.evaluation.captions import CaptionBenchmark
from flows.stopping import Config, gains_nothing
from storage.run_store import RunStore
from tests.scripted_run import Csr, write_recipe

RUN = "mine"


@pytest.mark.parametrize(
    ("values", "over"),
    [
        ([0.3], False),
        ([0.3, 0.2], False),
        ([0.3, 0.2, 0.3], True),  # two iterations, neither better than the base
        ([0.3, 0.4, 0.35, 0.45], False),
        ([0.3, 0.4, 0.35, 0.4], True),
    ],
)
def test_patience_counts_from_the_best_so_far(values: list[float], over: bool) -> None:
    assert gains_nothing(values, Config(metric="any", patience=2)) is over


def test_a_gain_must_be_large_enough() -> None:
    assert gains_nothing([0.3, 0.34], Config(metric="any", patience=1, min_gain=0.05))
    assert not gains_nothing([0.3, 0.36], Config(metric="any", patience=1, min_gain=0.05))


def test_a_run_ends_early_and_is_finished_then(
    csr: Csr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([0.3, 0.5, 0.5, 0.4])
    original = CaptionBenchmark.evaluate
    monkeypatch.setattr(
        CaptionBenchmark, "evaluate", lambda *a: original(*a) | {"gain": next(figures)}
    )
    recipe = write_recipe(
        tmp_path / "data", num_iterations=5, stop={"metric": "gain", "patience": 2}
    )
    command = ("run", recipe, "--home", tmp_path / "home", "--run-id", RUN)
    answer = csr(*command)
    assert answer.status == 0
    assert "nothing more is gained" in answer.err
    store = RunStore(tmp_path / "home")
    assert store.iterations(RUN) == [0, 1, 2, 3]
    assert store.run(RUN).status == "done"
    assert "finished already" in csr(*command).err


def test_a_figure_that_nothing_measures_is_refused(csr: Csr, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data", stop={"metric": "rouge"})
    answer = csr("run", recipe, "--home", tmp_path / "home")
    assert answer.status == 1
    assert "stop.metric is 'rouge', which no benchmark of the recipe gives" in answer.err
