"""Bad input through the real command: one message, status 2, and nothing written."""

import json
import shutil
import subprocess
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from storage.rows import prompts_from_table
from storage.run_store import RunStore
from storage.tables import read_table
from tests.scripted_run import Csr, files_below, write_image, write_prompts, write_recipe


def edit(recipe: Path, change: Callable[[dict], object]) -> None:
    document = yaml.safe_load(recipe.read_text())
    change(document)
    recipe.write_text(yaml.safe_dump(document))


def unknown_key(recipe: Path) -> None:
    edit(recipe, lambda d: d["data"].update(num_promts_per_iteration=3))


def unknown_component(recipe: Path) -> None:
    edit(recipe, lambda d: d.update(sampler="scriptd"))


def unknown_component_setting(recipe: Path) -> None:
    edit(recipe, lambda d: d.update(trainer={"name": "scripted", "learning_rat": 1}))


def key_twice(recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + "seed: 1\nseed: 2\n")


def not_yaml(recipe: Path) -> None:
    recipe.write_text("name: [")


def world_mark_without_world(recipe: Path) -> None:
    edit(recipe, lambda d: d["policy"].update(model="${world}/policy"))


def no_image_folder(recipe: Path) -> None:
    edit(recipe, lambda d: d["data"].update(images="nowhere"))


def not_an_image(recipe: Path) -> None:
    (recipe.parent / "images/3.png").write_text("hello")


def truncated_image(recipe: Path) -> None:
    path = recipe.parent / "images/3.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])


def giant_image(recipe: Path) -> None:
    Image.new("1", (9000, 9000)).save(recipe.parent / "images/3.png")


def no_prompts(recipe: Path) -> None:
    (recipe.parent / "train.jsonl").write_text("")


def duplicate_ids(recipe: Path) -> None:
    file = recipe.parent / "train.jsonl"
    file.write_text(file.read_text() + file.read_text())


def no_model(recipe: Path) -> None:
    shutil.rmtree(recipe.parent / "policy")


def model_without_weights(recipe: Path) -> None:
    (recipe.parent / "policy/model.safetensors").unlink()


def leaked_image(recipe: Path) -> None:
    shutil.copy(recipe.parent / "images/4.png", recipe.parent / "images/100.png")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (unknown_key, "Did you mean 'num_prompts_per_iteration'?"),
        (unknown_component, "Did you mean 'scripted'?"),
        (unknown_component_setting, "trainer.learning_rat: unknown setting. Did you mean"),
        (key_twice, "'seed' stands twice"),
        (not_yaml, "cannot be read as YAML"),
        (world_mark_without_world, "the recipe has no `world`"),
        (no_image_folder, "the image folder nowhere does not exist"),
        (not_an_image, "3.png is none of JPEG, PNG"),
        (truncated_image, "3.png is damaged"),
        (giant_image, "more than 50,000,000 pixels"),
        (no_prompts, "train.jsonl is empty"),
        (duplicate_ids, "the id '0' stands already in"),
        (no_model, "the path does not exist"),
        (model_without_weights, "has no safetensors weights"),
        (leaked_image, "also the image of the training prompt '4'"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(
    csr: Csr, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    recipe = write_recipe(tmp_path / "data")
    damage(recipe)
    answer = csr("run", recipe, "--home", tmp_path / "home", "--json")
    assert answer.status == 2
    assert message in answer.err
    assert "Traceback" not in answer.err
    assert answer.err.count("error: ") == 1
    assert answer.out == ""
    assert files_below(tmp_path / "home") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "seed"), "not of the form a.b=value"),
        (("--set", "=3"), "not of the form a.b=value"),
        (("--set", "name.deep=3"), "no mapping of settings"),
        (("--set", "seed=[1"), "cannot be read as a YAML value"),
        (("--set", "sed=1"), "Did you mean 'seed'?"),
        (("--set", "num_iterations=-1"), "num_iterations: Input should be greater than or equal"),
        (("--set", "probe_tolerance=.nan"), "finite number"),
        (("--run-id", "../up"), "cannot name a run"),
        (("--run-id", ""), "cannot name a run"),
        (("--set", "similarity=null"), "there is no `similarity`"),
        (("--set", "trainer.learning_rat=1"), "Did you mean 'learning_rate'?"),
        (("--set", "world={captions: {omit: 2}}"), "less than or equal to 1"),
        (("--set", "world={policy: {width: 33}}"), "multiple of 32"),
        (("--set", "world={num_train: -1}"), "greater than 0"),
        (("--sett", "seed=1"), "--sett"),
    ],
)
def test_bad_options_are_told_and_nothing_is_written(
    csr: Csr, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    recipe = write_recipe(tmp_path / "data")
    answer = csr("run", recipe, "--home", tmp_path / "home", *arguments)
    assert answer.status == 2
    assert message in " ".join(answer.err.split())
    assert "Traceback" not in answer.err
    assert files_below(tmp_path / "home") == []


@pytest.mark.parametrize("command", ["run", "validate"])
def test_all_that_is_absent_is_told_at_once(csr: Csr, tmp_path: Path, command: str) -> None:
    recipe = write_recipe(tmp_path / "data")
    absent = {
        "policy.model": "/no/model",
        "data.prompts": "/no/prompts.jsonl",
        "data.images": "/no/images",
    }
    (tmp_path / "data/heldout.jsonl").unlink()
    settings = [part for name, value in absent.items() for part in ("--set", f"{name}={value}")]
    inputs = ("--inputs",) if command == "validate" else ()
    answer = csr(command, recipe, *settings, *inputs, "--home", tmp_path / "home")
    assert (answer.status, answer.out) == (2, "")
    for told in (
        "policy.model: No model directory at '/no/model'",
        "data.prompts: /no/prompts.jsonl does not exist.",
        "data.images: the image folder /no/images does not exist",
        f"evaluation.0 (captions).prompts: {tmp_path}/data/heldout.jsonl does not exist.",
    ):
        assert told in answer.err
    assert files_below(tmp_path / "home") == []
    assert csr("validate", recipe, *settings).status == 0


def test_inputs_that_can_work_are_validated_and_nothing_is_written(
    csr: Csr, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "data")
    answer = csr("validate", recipe, "--inputs", "--home", tmp_path / "home", "--json")
    assert answer.status == 0
    assert answer.json()["recipe"]["name"] == "scripted"
    assert files_below(tmp_path / "home") == []


def test_two_benchmarks_of_one_name_are_refused(csr: Csr, tmp_path: Path) -> None:
    """The figures of one would overwrite those of the other."""
    recipe = write_recipe(tmp_path / "data")
    (captions,) = yaml.safe_load(recipe.read_text())["evaluation"]
    edit(recipe, lambda d: d["evaluation"].append(captions))
    answer = csr("run", recipe, "--home", tmp_path / "home")
    assert answer.status == 2
    assert "names 'captions' twice" in answer.err
    assert files_below(tmp_path / "home") == []


@pytest.mark.parametrize("home", ["/proc/runs", "x" * 300])
def test_a_home_that_cannot_be_made_is_told(csr: Csr, tmp_path: Path, home: str) -> None:
    recipe = write_recipe(tmp_path / "data")
    answer = csr("run", recipe, "--home", home)
    assert answer.status == 2
    assert "--home" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--set", "similarity={name: clip, model: /no/clip}"), "/no/clip"),
        (("--set", "policy.model=/no/model"), "the path does not exist"),
        (("--home", "/proc/runs"), "--home"),
    ],
)
def test_no_world_is_built_for_a_run_that_cannot_work(
    csr: Csr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], message: str
) -> None:
    """A world takes minutes."""
    monkeypatch.setenv("CSR_CACHE", str(tmp_path / "cache"))
    recipe = write_recipe(tmp_path / "data", world={})
    home = () if "--home" in more else ("--home", tmp_path / "home")
    answer = csr("run", recipe, *home, *more)
    assert answer.status == 2
    assert message in answer.err
    assert files_below(tmp_path / "cache") == files_below(tmp_path / "home") == []


def test_a_cache_without_room_for_the_world_is_told(
    csr: Csr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("CSR_CACHE", str(tmp_path / "file" / "cache"))
    recipe = write_recipe(tmp_path / "data", world={})
    answer = csr("run", recipe, "--home", tmp_path / "home")
    assert answer.status == 2
    assert "CSR_CACHE" in answer.err
    assert files_below(tmp_path / "home") == []


def test_too_small_a_disk_is_told_before_anything_is_written(
    csr: Csr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path / "data")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 0))
    answer = csr("run", recipe, "--home", tmp_path / "home")
    assert answer.status == 2
    assert "has 0.00 GiB free" in answer.err
    assert files_below(tmp_path / "home") == []


def test_a_home_that_is_a_file_is_told(csr: Csr, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data")
    (tmp_path / "file").write_text("mine")
    for home in (tmp_path / "file", tmp_path / "file/below"):
        for command in (("run", recipe), ("ls",), ("show", "a/01"), ("trace", "a", "1")):
            answer = csr(*command, "--home", home)
            assert answer.status == 2
            assert "is a file" in answer.err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_read_only_home_is_told(
    csr: Csr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path / "data")

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    answer = csr("run", recipe, "--home", tmp_path / "home")
    assert answer.status == 2
    assert "permission is denied" in answer.err


def test_a_run_id_belongs_to_one_configuration(csr: Csr, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data", num_iterations=1)
    command = ("run", recipe, "--home", tmp_path / "home", "--run-id", "mine")
    assert csr(*command).status == 0
    answer = csr(*command, "--set", "seed=5")
    assert answer.status == 2
    assert "exists with another configuration (seed: 0 -> 5)" in answer.err


def test_a_run_is_finished_by_the_release_that_began_it(
    csr: Csr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path / "data", num_iterations=1)
    command = ("run", recipe, "--home", tmp_path / "home")
    assert csr(*command).status == 0
    monkeypatch.setattr("flows.context.code_version", lambda: "99.0")
    answer = csr(*command)
    assert answer.status == 2
    assert "and this is 99.0" in answer.err


def test_one_process_works_on_a_run(csr: Csr, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data", num_iterations=1)
    command = ("run", recipe, "--home", tmp_path / "home", "--run-id", "mine")
    assert csr(*command).status == 0
    lock = tmp_path / "home/mine/.lock"
    other = subprocess.Popen(
        ["flock", "--exclusive", str(lock), "sh", "-c", "echo locked; read wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    other.stdout.readline()
    answer = csr(*command)
    other.communicate(b"\n")
    assert answer.status == 2
    assert "is being worked on by process" in answer.err
    assert csr(*command).status == 0


def test_bad_records_are_left_out_and_counted_where_asked(csr: Csr, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data", num_iterations=1)
    edit(recipe, lambda d: d["data"].update(on_bad_record="skip", max_bad_share=0.2))
    not_an_image(recipe)
    (tmp_path / "data/images/5.png").unlink()
    answer = csr("run", recipe, "--home", tmp_path / "home", "--run-id", "mine", "--json")
    assert answer.status == 0
    assert answer.json()["prompts"] == {"used": 10, "skipped": {"unreadable_image": 2}}
    store = RunStore(tmp_path / "home")
    quarantined = read_table(store.quarantine_path("mine"), "quarantine").to_pylist()
    assert [row["prompt_id"] for row in quarantined] == ["3", "5"]
    kept = prompts_from_table(read_table(store.prompts_path("mine"), "prompts"))
    assert [prompt.prompt_id for prompt in kept] == [str(n) for n in range(12) if n not in (3, 5)]
    assert "2 left out (unreadable_image)" in (tmp_path / "home/mine/report.html").read_text()


def test_paths_may_be_relative_and_the_run_goes_on_from_elsewhere(
    csr: Csr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path / "data", num_iterations=1)
    recipe.write_text(recipe.read_text().replace(f"{tmp_path}/", ""))
    monkeypatch.chdir(tmp_path)
    assert csr("run", recipe, "--home", "home", "--run-id", "mine").status == 0
    config = RunStore(tmp_path / "home").run("mine").config
    assert config["policy"]["model"] == f"{tmp_path}/data/policy"
    assert config["evaluation"][0]["prompts"] == f"{tmp_path}/data/heldout.jsonl"
    run_id = csr("validate", recipe, "--json").json()["run_id"]
    assert csr("run", recipe, "--home", "home", "--json").json()["run_id"] == run_id


def test_no_file_of_a_run_is_a_pickle(csr: Csr, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data", num_iterations=1)
    csr("run", recipe, "--home", tmp_path / "home")
    files = files_below(tmp_path / "home")
    assert len(files) > 10
    # Every pickle protocol from 2 on begins with 0x80; PyTorch's own files are zip archives.
    starts = {file: file.read_bytes()[:2] for file in files}
    assert [file for file, start in starts.items() if start[:1] == b"\x80" or start == b"PK"] == []
    known = {".json", ".parquet", ".safetensors", ".html"}
    assert {f.suffix for f in files if not f.name.startswith(".")} == known


def test_an_image_is_a_leak_by_content_not_by_name(csr: Csr, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data", num_iterations=1)
    (tmp_path / "other").mkdir()
    write_image(tmp_path / "other/4.png", 104)  # the name of a training image, another content
    write_prompts(tmp_path / "data/heldout.jsonl", range(4, 5))
    settings = json.dumps(str(tmp_path / "other"))
    edit(recipe, lambda d: d["evaluation"][0].update(images=json.loads(settings)))
    assert csr("run", recipe, "--home", tmp_path / "home").status == 0
