"""Doing an iteration over, choosing which attempt counts, and seeing what differs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from flows.components import components
from flows.config import Recipe
from flows.forms import IterationRequest
from flows.iteration import STAGES
from flows.rerun import FIXED_SETTINGS, SETTINGS_READ, UNREAD_SETTINGS
from storage.run_store import RunStore
from tests.scripted_run import Csr, files_below, finished_home

RUN = "mine"


@pytest.fixture
def home(csr: Csr, tmp_path: Path) -> Path:
    """A finished run of two iterations."""
    return finished_home(csr, tmp_path, RUN)


def ask(csr: Csr, home: Path, *arguments: object) -> Any:
    answer = csr(*arguments, "--home", home, "--json")
    assert answer.status == 0, answer.err
    return answer.json()


def contents(home: Path, attempt: str) -> dict[str, bytes]:
    folder = home / RUN / "iterations" / attempt
    return {str(file.relative_to(folder)): file.read_bytes() for file in files_below(folder)}


def test_a_rerun_makes_the_same_beside_the_first(csr: Csr, home: Path) -> None:
    before = contents(home, "02/attempts/1")
    shape = ask(csr, home, "rerun", f"{RUN}/02")
    first = ask(csr, home, "show", f"{RUN}/02.1")
    assert (shape["attempt"], shape["status"], shape["current"]) == (2, "done", False)
    assert shape["rerun_of"] == f"{RUN}/02.1"
    for same in ("tables", "metrics", "counts"):
        assert shape[same] == first[same]
    assert shape["policy"]["sha256"] == first["policy"]["sha256"]
    assert shape["policy"]["path"] != first["policy"]["path"]
    assert contents(home, "02/attempts/1") == before
    assert ask(csr, home, "ls", RUN)["iterations"][1]["attempt"] == 1

    difference = ask(csr, home, "diff", f"{RUN}/02.1", f"{RUN}/02.2")
    assert difference["config"] == difference["counts"] == difference["metrics"] == {}
    assert difference["policy_equal"]
    assert all(facts["equal"] for facts in difference["tables"].values())
    assert difference["pairs"]["num_unchanged"] == first["counts"]["pairs"]


def test_a_difference_from_pairs_alone_is_told_in_few_lines(csr: Csr, home: Path) -> None:
    ask(csr, home, "rerun", f"{RUN}/01", "--from", "pair", "--until", "pair")
    told = csr("diff", f"{RUN}/01.1", f"{RUN}/01.2", "--home", home).out
    assert re.search(r"metrics\.\* +│ \d+ figures +│ none", told)
    assert re.search(r"policy: differ +│ [0-9a-f]{16} +│ None", told)
    assert "unset" not in told


def test_an_override_differs_only_where_it_should(csr: Csr, home: Path) -> None:
    setting = "source.pair_filter.min_margin_quantile=0.5"
    ask(csr, home, "rerun", f"{RUN}/01", "--set", setting)
    difference = ask(csr, home, "diff", f"{RUN}/01.1", f"{RUN}/01.2")
    assert difference["config"] == {"source.pair_filter.min_margin_quantile": [0.0, 0.5]}
    assert difference["tables"]["nodes"]["equal"]
    assert not difference["tables"]["pairs"]["equal"]
    assert difference["pairs"]["added"] == difference["pairs"]["changed"] == []
    assert len(difference["pairs"]["removed"]) == 3
    assert difference["counts"]["pairs"] == [6, 3]
    assert difference["counts"]["skipped.small_margin"] == ["unset", 3]
    assert not difference["policy_equal"]


@pytest.mark.parametrize(
    ("setting", "changes_pairs"), [(None, False), ("reward.image_weight=0.1", True)]
)
def test_pairs_alone_come_from_the_stored_trees(
    csr: Csr,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str | None,
    changes_pairs: bool,
) -> None:
    def no_engine(*args: object) -> None:
        raise AssertionError("an engine was started")

    for maker in ("sampler", "similarity"):
        monkeypatch.setattr(f"flows.engines.Engines.{maker}", no_engine)
    options = ("--set", setting) if setting else ()
    shape = ask(csr, home, "rerun", f"{RUN}/02", "--from", "pair", "--until", "pair", *options)
    assert (shape["attempt"], shape["status"]) == (2, "suspended")
    difference = ask(csr, home, "diff", f"{RUN}/02.1", f"{RUN}/02.2")
    assert difference["tables"]["nodes"]["equal"]
    assert difference["tables"]["pairs"]["equal"] is not changes_pairs
    assert difference["tables"]["responses"]["equal"] is not changes_pairs


def test_the_rest_follows_from_pairs_taken_over(csr: Csr, home: Path) -> None:
    options = ("--from", "pair", "--set", "reward.image_weight=0.1")
    alone = ask(csr, home, "rerun", f"{RUN}/01", *options, "--until", "pair")
    assert ask(csr, home, "ls", RUN)["other_attempts"] == [
        {"attempt_id": f"{RUN}/01.2", "status": "suspended"}
    ]
    assert f"other attempts: {RUN}/01.2 (suspended)" in csr("ls", RUN, "--home", home).out
    refused = csr("promote", f"{RUN}/01.2", "--home", home)
    assert "The command that began it, without --until, goes on with it." in refused.err
    whole = ask(csr, home, "rerun", f"{RUN}/01", *options)
    assert (whole["attempt"], whole["status"]) == (2, "done")  # the same attempt went on
    assert whole["tables"] == alone["tables"]
    sampled = json.loads((home / RUN / "iterations/01/attempts/1/manifest.json").read_text())
    taken = json.loads((home / RUN / "iterations/01/attempts/2/manifest.json").read_text())
    assert [s for s in taken["stages"] if s["stage"] in ("measure", "sample")] == [
        s for s in sampled["stages"] if s["stage"] in ("measure", "sample")
    ]


def test_evaluation_alone_keeps_the_policy(csr: Csr, home: Path) -> None:
    shape = ask(csr, home, "rerun", f"{RUN}/02", "--from", "evaluate")
    first = ask(csr, home, "show", f"{RUN}/02.1")
    assert shape["metrics"] == first["metrics"]
    assert shape["policy"]["sha256"] == first["policy"]["sha256"]
    assert "attempts/2/policy/model" in shape["policy"]["path"]
    assert Path(shape["policy"]["path"]).is_dir()
    base = ask(csr, home, "rerun", f"{RUN}/00")
    assert base["metrics"] == ask(csr, home, "show", f"{RUN}/00.1")["metrics"]


def test_an_interrupted_rerun_goes_on(
    csr: Csr, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("csr.trainers.scripted.ScriptedTrainer.train", interrupted)
        assert csr("rerun", f"{RUN}/02", "--home", home).status == 130
    assert ask(csr, home, "show", f"{RUN}/02.2")["status"] == "suspended"
    assert ask(csr, home, "rerun", f"{RUN}/02")["attempt"] == 2
    assert ask(csr, home, "rerun", f"{RUN}/02")["attempt"] == 3  # that one was done


def test_promotion_makes_later_iterations_stale(csr: Csr, home: Path, tmp_path: Path) -> None:
    ask(csr, home, "rerun", f"{RUN}/01")
    assert ask(csr, home, "promote", f"{RUN}/01.2")["stale"] == []  # the same weights
    ask(csr, home, "rerun", f"{RUN}/01", "--from", "train", "--set", "trainer.num_epochs=3")
    promoted = ask(csr, home, "promote", f"{RUN}/01.3")
    assert promoted == {"iteration_id": f"{RUN}/01", "attempt": 3, "stale": [f"{RUN}/02"]}
    listed = ask(csr, home, "ls", RUN)
    assert [(i["attempt"], i["status"]) for i in listed["iterations"]] == [
        (3, "done"),
        (1, "stale"),
    ]
    assert listed["status"] == "stale"
    caution = f"{RUN}/02.1 is stale: what it builds on was replaced since"
    assert ask(csr, home, "compare", RUN)["cautions"] == [caution]
    assert ask(csr, home, "ls")["runs"][0]["status"] == "stale"
    assert (
        "stale" in (csr("report", RUN, "--home", home), (home / RUN / "report.html"))[1].read_text()
    )

    recipe = tmp_path / "data/scripted.yaml"
    old = contents(home, "02/attempts/1")
    assert csr("run", recipe, "--home", home, "--run-id", RUN).status == 0
    listed = ask(csr, home, "ls", RUN)
    assert [(i["attempt"], i["status"]) for i in listed["iterations"]] == [(3, "done"), (2, "done")]
    assert contents(home, "02/attempts/1") == old
    assert ask(csr, home, "promote", f"{RUN}/01.1")["stale"] == [f"{RUN}/02"]
    assert ask(csr, home, "promote", f"{RUN}/02.1")["stale"] == []  # built on that one


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rerun", "mine-02"), "'mine-02' is not an iteration ID"),
        (("rerun", "mine/07"), "there is no mine/07"),
        (("rerun", "other/01"), "there is no run 'other'"),
        (("rerun", "mine/01", "--set", "data.max_bad_share=1"), "'data' is fixed for all of run"),
        (("rerun", "mine/01", "--set", "num_iterations=3"), "'num_iterations' is fixed"),
        (
            ("rerun", "mine/01", "--from", "train", "--set", "reward.image_weight=0.2"),
            "'reward' decides what measure and sample and pair make",
        ),
        (("rerun", "mine/01", "--from", "train", "--until", "pair"), "no stage lies between"),
        (("rerun", "mine/01", "--set", "trainer.learning_rat=1"), "Did you mean 'learning_rate'?"),
        (("rerun", "mine/01", "--from", "pair", "--set", "reward.likelihood=product"), "anew"),
        (("promote", "mine/01.4"), "there is no mine/01.4"),
        (("diff", "mine/01.1", "mine/01.2"), "there is no mine/01.2"),
    ],
)
def test_what_cannot_work_is_told_and_nothing_is_written(
    csr: Csr, home: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = contents(home, "01")
    answer = csr(*arguments, "--home", home)
    assert answer.status in (1, 2)
    assert message in answer.err
    assert "Traceback" not in answer.err
    if "product" not in str(arguments):  # found when the pairs are made
        assert contents(home, "01") == before


def test_a_damaged_origin_is_not_taken_over(csr: Csr, home: Path) -> None:
    shard = home / RUN / "iterations/01/attempts/1/nodes/00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    answer = csr("rerun", f"{RUN}/01", "--from", "pair", "--home", home)
    assert answer.status == 2
    assert "cannot be taken over" in answer.err
    assert "nodes/00001.parquet changed" in answer.err
    assert RunStore(home).attempts(RUN, 1) == [1]


def test_a_setting_that_no_stage_of_the_rerun_reads_is_refused(csr: Csr, home: Path) -> None:
    pairs = ("--from", "pair", "--until", "pair")
    for arguments, message in (
        (
            ("02", "--from", "pair", "--set", "source.num_candidates=9"),
            "'source.num_candidates' decides what measure and sample make, and this rerun does "
            "pair and train and evaluate and gate alone",
        ),
        (
            ("02", *pairs, "--set", "seed=9"),
            "'seed' decides what measure and sample and train make, and this rerun does pair alone",
        ),
        (
            ("02", *pairs, "--set", "trainer.num_epochs=9"),
            "'trainer' decides what train make, and this rerun does pair alone",
        ),
        (("00", "--set", "seed=9"), "this rerun does evaluate and gate alone"),
        (("01", "--set", "source.preset=paper"), "'source.preset' fills in settings that"),
        (
            ("01", "--from", "pair", "--set", "source={name: sima}"),
            "'source' decides what measure and sample make",
        ),
        (
            ("01", "--set", "source={name: stic}", "--set", "reward.image_weight=0.5"),
            "'reward' would have no effect: the source 'stic' rewards no steps",
        ),
    ):
        iteration, *options = arguments
        answer = csr("rerun", f"{RUN}/{iteration}", *options, "--home", home)
        assert (answer.status, message in answer.err) == (2, True), answer.err
        assert RunStore(home).attempts(RUN, int(iteration)) == [1]


def test_a_source_says_which_of_its_settings_pair_alone_reads() -> None:
    for name, module in components("csr.sources").items():
        assert set(module.PAIRING_SETTINGS) < set(module.Config.model_fields), name


def test_every_setting_is_fixed_or_read_by_a_stage() -> None:
    read = {name for names in SETTINGS_READ.values() for name in names}
    assert read | {*FIXED_SETTINGS, *UNREAD_SETTINGS} == set(Recipe.model_fields)
    assert list(SETTINGS_READ) == list(STAGES)
    stage_choices = IterationRequest.model_json_schema()["properties"]["from_stage"]["anyOf"][0]
    assert stage_choices["enum"] == list(STAGES)
