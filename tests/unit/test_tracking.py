"""A run with a tracker: told by a process of its own, and never the worse for it."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from csr.trackers.tensorboard import logged_numbers
from flows import tracker_check
from flows.config import load_recipe, run_id_of
from flows.tracking import track_run, tracker_lock
from storage.run_store import RunStore
from tests.scripted_run import Csr, files_below, finished_home, write_recipe

RUN = "mine"


def test_a_tracker_is_told_while_a_run_goes_on(csr: Csr, tmp_path: Path) -> None:
    home, recipe = tmp_path / "home", write_recipe(tmp_path / "data", tracker="tensorboard")
    answer = csr("run", recipe, "--home", home, "--run-id", RUN)
    assert answer.status == 0, answer.err
    folder = home / RUN / "tensorboard"
    told = logged_numbers(folder)
    assert told["evaluate/mean_response_tokens"] == {0, 1, 2}
    assert told["pair/num_pairs"] == told["responses/reward_p50"] == {1, 2}
    assert logged_numbers(folder / "02.1-training")["train/loss"] == {1}

    shape = csr("track", RUN, "--home", home, "--json").json()
    assert shape == {
        "run_id": RUN,
        "tracker": "tensorboard",
        "num_new_figures": 0,
        "shown_by": f"tensorboard --logdir {home}",
    }
    assert csr("rerun", f"{RUN}/02", "--from", "pair", "--home", home).status == 0
    assert logged_numbers(folder / "02.2")["pair/num_pairs"] == {2}
    assert logged_numbers(folder) == told


def test_a_finished_run_can_be_shown_afterwards(csr: Csr, tmp_path: Path) -> None:
    home = finished_home(csr, tmp_path, RUN)
    refused = csr("track", RUN, "--home", home)
    assert refused.status == 2
    assert f"csr track {RUN} tensorboard" in refused.err
    assert "Known: tensorboard, trackio, wandb" in csr("track", RUN, "tb", "--home", home).err
    wrong = csr("track", RUN, "trackio", "--set", "projct=x", "--home", home)
    assert wrong.status == 2
    assert "project" in wrong.err
    useless = csr("track", RUN, "tensorboard", "--set", "project=x", "--home", home)
    assert useless.status == 2
    assert "project: unknown setting. There are no settings here." in useless.err
    shape = csr("track", RUN, "tensorboard", "--home", home, "--json").json()
    assert shape["num_new_figures"] > 100
    assert csr("track", RUN, "tensorboard", "--home", home).out.startswith("0 new figures.")
    assert not (home / RUN / "tracker.json").exists()


def test_it_waits_for_a_process_that_still_tells(csr: Csr, tmp_path: Path) -> None:
    home = finished_home(csr, tmp_path, RUN)
    with ThreadPoolExecutor() as pool:
        with tracker_lock(RunStore(home), RUN):
            told = pool.submit(track_run, home, RUN, "tensorboard")
            with pytest.raises(TimeoutError):
                told.result(timeout=1.0)
            assert not (home / RUN / "tensorboard").exists()
        assert told.result()["num_new_figures"] > 100


def test_another_tracker_is_the_same_run(csr: Csr, tmp_path: Path) -> None:
    plain = load_recipe(write_recipe(tmp_path / "data"))
    tracked = load_recipe(write_recipe(tmp_path / "data", tracker={"name": "trackio"}))
    assert run_id_of(plain) == run_id_of(tracked)
    assert plain.model_dump_json() == tracked.model_dump_json()

    home, recipe = finished_home(csr, tmp_path, RUN), tmp_path / "data" / "scripted.yaml"
    before = {file: file.stat().st_mtime_ns for file in files_below(home / RUN / "iterations")}
    command = ("run", recipe, "--home", home, "--run-id", RUN)
    assert csr(*command, "--set", "tracker=tensorboard").status == 0
    assert json.loads((home / RUN / "tracker.json").read_text()) == {"name": "tensorboard"}
    assert csr(*command).status == 0
    assert not (home / RUN / "tracker.json").exists()
    after = {file: file.stat().st_mtime_ns for file in files_below(home / RUN / "iterations")}
    assert after == before
    assert "tracker" not in RunStore(home).run(RUN).config


def test_a_missing_package_is_told_before_the_run(
    csr: Csr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_check.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(tracker_check, "requirement_of_extra", {"wandb": "wandb<1"}.get)
    recipe = write_recipe(tmp_path / "data", tracker="wandb")
    answer = csr("run", recipe, "--home", tmp_path / "home")
    assert answer.status == 2
    assert 'pip install "wandb<1"' in answer.err
    assert not (tmp_path / "home").exists()


def test_the_command_to_install_names_the_extras_version() -> None:
    from packaging.requirements import Requirement

    from flows.versions import requirement_of_extra

    requirements = ['wandb<0.32,>=0.31; extra == "wandb"', "numpy>=2"]
    assert requirement_of_extra("wandb", requirements) == "wandb<0.32,>=0.31"
    assert requirement_of_extra("other", requirements) is None
    assert Requirement(requirement_of_extra("wandb", requirements) or "").name == "wandb"


def test_a_tracker_that_fails_is_a_warning(csr: Csr, tmp_path: Path) -> None:
    home, recipe = tmp_path / "home", write_recipe(tmp_path / "data", tracker="tensorboard")
    assert csr("run", recipe, "--home", home, "--run-id", RUN, "--set", "tracker=null").status == 0
    (home / RUN / "tensorboard").write_text("in the way")
    RunStore(home).attempt(RUN, 2).manifest.update(status="running", stages=())
    answer = csr("run", recipe, "--home", home, "--run-id", RUN)
    assert answer.status == 0
    assert "its tracker was not told all" in answer.err
    assert RunStore(home).run(RUN).status == "done"
    again = csr("track", RUN, "--home", home)
    assert again.status == 2
    assert "The tracker 'tensorboard' failed" in again.err


def test_the_tracker_is_the_whole_runs(csr: Csr, tmp_path: Path) -> None:
    home = finished_home(csr, tmp_path, RUN)
    answer = csr("rerun", f"{RUN}/01", "--set", "tracker=tensorboard", "--home", home)
    assert answer.status == 2
    assert f"csr track {RUN}" in answer.err
    recipe = write_recipe(tmp_path / "own", per_iteration={1: {"tracker": "tensorboard"}})
    assert "per_iteration.1 sets 'tracker'" in csr("validate", recipe).err


def test_validate_shows_the_tracker(csr: Csr, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data", tracker={"name": "wandb", "entity": "us"})
    shown = csr("validate", recipe, "--json").json()["recipe"]["tracker"]
    assert shown == {"name": "wandb", "project": "csr", "entity": "us"}
