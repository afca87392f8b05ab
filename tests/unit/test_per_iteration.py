"""Iterations that differ from the rest of their run, and what may not differ."""

from pathlib import Path

import pytest
import yaml

from flows.per_iteration import merged
from storage.run_store import RunStore
from tests.scripted_run import Csr, write_prompts, write_recipe

RUN = "mine"


def test_mappings_are_merged_and_another_component_replaces_the_one_before() -> None:
    before = {"trainer": {"name": "dpo", "beta": 0.1, "rank": 8}, "reward": {"a": {"b": 1, "c": 2}}}
    changes = {"trainer": {"name": "sft", "rank": 4}, "reward": {"a": {"c": 3}}, "seed": 5}
    assert merged(before, changes) == {
        "trainer": {"name": "sft", "rank": 4},
        "reward": {"a": {"b": 1, "c": 3}},
        "seed": 5,
    }
    assert merged(before, {"trainer": {"beta": 0.5}})["trainer"] == {
        "name": "dpo", "beta": 0.5, "rank": 8,
    }  # fmt: skip


def test_an_iteration_follows_its_own_settings_and_prompts(csr: Csr, tmp_path: Path) -> None:
    others = tmp_path / "data" / "others.jsonl"
    own = {
        "trainer": {"num_epochs": 3},
        "data": {"prompts": str(others), "num_prompts_per_iteration": 2},
    }
    recipe = write_recipe(tmp_path / "data", per_iteration={2: own})
    write_prompts(others, range(7, 10))
    home = tmp_path / "home"
    assert csr("run", recipe, "--home", home, "--run-id", RUN).status == 0
    store = RunStore(home)
    histories = [store.attempt(RUN, number).path / "policy" / "history.json" for number in (1, 2)]
    assert [path.read_text().count('"step"') for path in histories] == [1, 3]
    one, two = (store.attempt(RUN, number).manifest.read() for number in (1, 2))
    assert one.config["trainer"]["num_epochs"] == 1
    assert two.config["trainer"]["num_epochs"] == 3
    pairing = two.stage("pair")
    assert pairing is not None
    assert pairing.metrics["num_prompts"] == 2
    trace = csr("trace", RUN, "9", "--iteration", "2", "--home", home, "--json").json()
    assert trace["iteration_id"] == f"{RUN}/02"
    assert csr("ls", RUN, "--home", home, "--json").json()["prompts"]["used"] == 12 + 3
    assert csr("verify", RUN, "--home", home).status == 0


def test_a_rerun_follows_the_settings_of_its_iteration(csr: Csr, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data", per_iteration={2: {"trainer": {"num_epochs": 3}}})
    home = tmp_path / "home"
    assert csr("run", recipe, "--home", home, "--run-id", RUN).status == 0
    assert csr("rerun", f"{RUN}/02", "--home", home).status == 0
    digests = [
        RunStore(home).attempt(RUN, 2, number).manifest.read().policy_out["sha256"]
        for number in (1, 2)
    ]
    assert digests[0] == digests[1]


def test_one_iterations_settings_can_be_overridden(csr: Csr, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data", per_iteration={2: {"trainer": {"num_epochs": 3}}})
    home = tmp_path / "home"
    override = ("--set", "per_iteration.2.trainer.num_epochs=4")
    assert csr("run", recipe, "--home", home, "--run-id", RUN, *override).status == 0
    config = RunStore(home).attempt(RUN, 2).manifest.read().config
    assert config["trainer"]["num_epochs"] == 4


@pytest.mark.parametrize(
    ("per_iteration", "message"),
    [
        ({3: {"trainer": {"num_epochs": 2}}}, "the run has iterations 1 to 2"),
        ({0: {"trainer": {"num_epochs": 2}}}, "the run has iterations 1 to 2"),
        ({2: {"seed": 5}}, "'seed', which is the whole run's"),
        ({2: {"trainer": {"num_epoch": 2}}}, "Did you mean 'num_epochs'?"),
        ({2: {"trainer": {"name": "sfd"}}}, "There is no component 'sfd'"),
    ],
)
def test_what_an_iteration_may_not_change(
    csr: Csr, tmp_path: Path, per_iteration: dict[int, object], message: str
) -> None:
    recipe = write_recipe(tmp_path / "data", per_iteration=per_iteration)
    answer = csr("run", recipe, "--home", tmp_path / "home")
    assert answer.status == 2
    assert message in answer.err
    assert not (tmp_path / "home").exists()


def test_relative_paths_of_an_iteration_are_made_absolute(
    csr: Csr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path / "data")
    document = yaml.safe_load(recipe.read_text())
    document["per_iteration"] = {2: {"data": {"prompts": "data/train.jsonl"}}}
    recipe.write_text(yaml.safe_dump(document))
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    assert csr("run", recipe, "--home", home, "--run-id", RUN).status == 0
    config = RunStore(home).attempt(RUN, 2).manifest.read().config
    assert config["data"]["prompts"] == str(tmp_path / "data" / "train.jsonl")
