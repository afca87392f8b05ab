"""Two image-text models in one reward, each against its own mean and deviation."""

from pathlib import Path

import pytest

from csr.types import StepGroup
from rewards.calibrated import build
from rewards.settings import Config
from rewards.statistics import Moments, Statistics
from storage.run_store import RunStore
from tests.scripted_run import Csr, write_recipe
from tests.trees import TableSimilarity, eos_step, make_prompt, make_step

STATISTICS = Statistics(
    likelihood=Moments(mean=-0.5, sd=0.5, count=100),
    image_similarity=Moments(mean=20.0, sd=10.0, count=100),
    likelihood_kind="mean_logprob",
    likelihood_scope="first",
    evidence={"second_similarity": Moments(mean=8.0, sd=1.0, count=100)},
    evidence_inputs={"second_similarity": {}},
)
REWARD = Config(image_weight=0.4, second_similarity_weight=0.4, offset=0.0, clip_high=3.0)


def test_a_narrow_model_counts_as_much_as_a_wide_one() -> None:
    """(30 - 20) / 10 = 1 and (6 - 8) / 1 = -2: .4 x 1 - .4 x 2; the likelihood is usual."""
    scorer = build(
        REWARD,
        TableSimilarity({"A dog.": 0.30}),
        STATISTICS,
        None,
        TableSimilarity({"A dog.": 0.06}),
    )
    group = StepGroup(
        prompt=make_prompt(), prefix=(), candidates=(make_step(" A dog.", [-0.5]), eos_step())
    )
    (dog, end) = scorer.score([group])[0]
    assert dog.reward == pytest.approx(0.4 * 1 + 0.4 * -2 + 0.2 * 0)
    assert dog.breakdown["second_similarity"] == pytest.approx(6.0)
    assert dog.breakdown["second_similarity_calibrated"] == pytest.approx(-2.0)
    assert end.reward == 0.0


def test_a_whole_run_with_two_and_its_pairs_anew(csr: Csr, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path / "data",
        second_similarity="scripted",
        reward={"image_weight": 0.5, "second_similarity_weight": 0.3},
        num_iterations=1,
    )
    home = tmp_path / "home"
    assert csr("run", recipe, "--home", home, "--run-id", "mine").status == 0
    measured = RunStore(home).attempt("mine", 1).manifest.read().stage("measure")
    assert measured is not None
    assert measured.metrics["second_similarity_sd"] > 0
    again = ("rerun", "mine/01", "--from", "pair", "--until", "pair", "--home", home)
    assert csr(*again, "--set", "reward.second_similarity_weight=0.1").status == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"second_similarity": "scripted"},
        {"reward": {"image_weight": 0.5, "second_similarity_weight": 0.3}},
    ],
)
def test_the_model_and_its_weight_go_together(
    csr: Csr, tmp_path: Path, settings: dict[str, object]
) -> None:
    answer = csr("run", write_recipe(tmp_path / "data", **settings), "--home", tmp_path / "home")
    assert answer.status == 2
    assert "go together" in answer.err
