"""Whole runs on data of other formats, by scripted components; what a recipe may say of them."""

import json
import re
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import webdataset
import yaml

from csr.files import file_sha256
from csr.prompt_files import PromptFiles
from flows.config import DataConfig
from flows.reading import count_records
from storage.images import FOLDER
from storage.rows import prompts_from_table
from storage.run_store import RunStore
from storage.tables import content_sha256, read_table
from tests.data_formats import Sample, picture, samples, write_coco, write_parquet
from tests.scripted_run import Csr, write_recipe

SHORT = ("--set", "num_iterations=1", "--set", "source.max_steps=2")
SKIP = ("--set", "data.on_bad_record=skip", "--set", "data.max_bad_share=0.5")


@pytest.fixture
def csr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Csr:
    return Csr(monkeypatch, capsys)


def recipe(folder: Path, prompts: Path | str, **data: Any) -> Path:
    """The scripted recipe with other data."""
    path = write_recipe(folder / "data")
    document = yaml.safe_load(path.read_text())
    document["data"] = {"prompts": str(prompts), "num_prompts_per_iteration": 100} | data
    path.write_text(yaml.safe_dump(document))
    return path


def run(csr: Csr, path: Path, home: Path, *more: object, run_id: str = "run") -> Any:
    answer = csr("run", path, "--home", home, "--run-id", run_id, "--json", *SHORT, *more)
    assert answer.status == 0, answer.err
    return answer.json()


def prompts_of(home: Path, run_id: str = "run") -> list[Any]:
    return prompts_from_table(read_table(RunStore(home).prompts_path(run_id), "prompts"))


def hostile_samples() -> list[Sample]:
    """Ten good ones, a damaged image, no image at all, and a blank question."""
    cut = Sample("cut", picture(50)[:60])
    return [*samples(10, 30), cut, Sample("none", b""), Sample("blank", picture(51), " ")]


def test_a_run_on_parquet_with_bytes(csr: Csr, tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "train.parquet", hostile_samples())
    path, home = recipe(tmp_path, source), tmp_path / "home"
    refused = csr("run", path, "--home", home, *SHORT)
    assert (refused.status, refused.out) == (2, "")
    assert "row 13: 'input' is blank" in refused.err
    assert not home.exists()

    shape = run(csr, path, home, *SKIP)
    skipped = {"unreadable_image": 2, "invalid_record": 1}
    assert shape["prompts"] == {"used": 10, "skipped": skipped}
    prompts = prompts_of(home)
    assert [p.prompt_id for p in prompts] == [f"s{n}" for n in range(30, 40)]
    for number, prompt in enumerate(prompts, start=30):
        assert Path(prompt.image.uri).is_relative_to(home / FOLDER)
        assert Path(prompt.image.uri).read_bytes() == picture(number)
        assert file_sha256(Path(prompt.image.uri)) == prompt.image.sha256
    assert len([file for file in (home / FOLDER).rglob("*") if len(file.name) == 64]) == 10

    source.unlink()  # what a run needs of it, it has
    assert csr("verify", "run", "--home", home).status == 0
    assert csr("report", "run", "--home", home).status == 0
    again = csr("rerun", "run/01", "--home", home, "--json")
    assert again.status == 0, again.err
    one, two = (csr("show", f"run/01.{n}", "--home", home, "--json").json() for n in (1, 2))
    assert one["counts"]["pairs"] + sum(one["counts"]["skipped"].values()) == 10
    for table in ("responses", "pairs"):
        assert one["tables"][table]["content_sha256"] == two["tables"][table]["content_sha256"]


def test_runs_share_images_and_mend_damaged_ones(csr: Csr, tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "train.parquet", samples(10, 30))
    path, home = recipe(tmp_path, source), tmp_path / "home"
    run(csr, path, home)
    first, *others = [Path(prompt.image.uri) for prompt in prompts_of(home)]
    known = {file: file.stat().st_mtime_ns for file in others}
    first.write_bytes(b"damaged")
    broken = csr("verify", "run", "--home", home)
    assert broken.status == 1
    run(csr, path, home, run_id="second")
    assert [Path(prompt.image.uri) for prompt in prompts_of(home, "second")] == [first, *others]
    assert {file: file.stat().st_mtime_ns for file in others} == known
    assert csr("verify", "run", "--home", home).status == 0


def test_a_run_that_was_killed_while_it_kept_images_goes_on(
    csr: Csr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_parquet(tmp_path / "train.parquet", samples(10, 30))
    path, home = recipe(tmp_path, source), tmp_path / "home"
    original, count = Path.write_bytes, 0

    def killed(file: Path, data: bytes) -> int:
        nonlocal count
        count += FOLDER in file.parts
        if count == 4:
            original(file, data[:20])
            (file.parent / f".leftover{file.suffix}").touch()
            raise KeyboardInterrupt
        return original(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", killed)
        assert csr("run", path, "--home", home, "--run-id", "run", *SHORT).status == 130
    assert len([file for file in (home / FOLDER).rglob("*") if len(file.name) == 64]) == 3
    assert run(csr, path, home)["prompts"]["used"] == 10
    assert not list((home / FOLDER).rglob("*.tmp"))
    assert csr("verify", "run", "--home", home).status == 0


def test_images_are_counted_before_anything_is_written(
    csr: Csr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [Sample(f"s{n}", picture(30 + n, "BMP") + bytes(2**20)) for n in range(4)]
    path = recipe(tmp_path, write_parquet(tmp_path / "train.parquet", given))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(0, 0, 2**29 + 2**21))
    answer = csr("run", path, "--home", tmp_path / "home", *SHORT)
    assert answer.status == 2
    assert "0.50 GiB free, and the run needs 0.50 GiB" in answer.err
    assert not (tmp_path / "home").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(0, 0, 2**29 + 2**23))
    run(csr, path, tmp_path / "home")


def test_held_out_images_are_found_within_the_data(csr: Csr, tmp_path: Path) -> None:
    path = recipe(tmp_path, tmp_path / "train.parquet")
    held_out = (tmp_path / "data/images/100.png").read_bytes()
    write_parquet(tmp_path / "train.parquet", [*samples(3, 30), Sample("leak", held_out)])
    answer = csr("run", path, "--home", tmp_path / "home", *SHORT)
    assert answer.status == 2
    assert "is also the image of the training prompt 'leak'" in answer.err


def test_a_run_on_coco(csr: Csr, tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "coco", 8)
    (folder / "train2014" / "COCO_train2014_000000000003.jpg").write_bytes(b"")
    path, home = recipe(tmp_path, folder, instruction="Describe the image."), tmp_path / "home"
    shape = run(csr, path, home, *SKIP)
    assert shape["prompts"] == {"used": 7, "skipped": {"unreadable_image": 1}}
    assert [(p.prompt_id, p.reference) for p in prompts_of(home)] == [
        (str(n), f"Caption of {n}.") for n in (1, 2, 4, 5, 6, 7, 8)
    ]
    assert not (home / FOLDER).exists()
    trace = csr("trace", "run", "7", "--home", home, "--json").json()
    assert trace["prompt"]["text"] == "Describe the image."


def test_a_run_on_conversations(csr: Csr, tmp_path: Path) -> None:
    """Questions = prompts + what is left out; the share of bad records counts faults alone."""
    path, home = recipe(tmp_path, tmp_path / "llava.json", images="images"), tmp_path / "home"
    turns = [{"from": speaker, "value": "<image>\nWhat?"} for speaker in ("human", "gpt")] * 4
    turns[1] = {"from": "gpt", "value": "A square."}
    records: list[dict[str, Any]] = [
        {"id": "same", "image": f"{n}.png", "conversations": turns} for n in range(6)
    ]
    records += [{"id": "text", "conversations": turns[:2]}]
    (tmp_path / "llava.json").write_text(json.dumps(records))
    images = ("--set", f"data.images={tmp_path / 'data' / 'images'}")
    shape = run(csr, path, home, *images)
    assert shape["prompts"] == {"used": 6, "skipped": {"later_turn": 18, "no_image": 1}}
    assert [p.prompt_id for p in prompts_of(home)] == ["same", *(f"same@{n}" for n in range(2, 7))]
    assert {(p.text, p.reference) for p in prompts_of(home)} == {("What?", "A square.")}
    quarantine = RunStore(home).quarantine_path("run")
    assert len(content_sha256(quarantine, "quarantine")) == 64  # no two rows have one key
    assert csr("trace", "run", "same@6", "--home", home).status == 0


def test_a_run_on_shards_whose_second_iteration_has_its_own(csr: Csr, tmp_path: Path) -> None:
    for name, start in (("first", 30), ("second", 60)):
        with webdataset.TarWriter(str(tmp_path / f"{name}.tar")) as writer:
            for each in samples(6, start):
                writer.write({"__key__": each.id, "png": each.image, "txt": each.input})
    path, home = recipe(tmp_path, tmp_path / "first.tar"), tmp_path / "home"
    document = yaml.safe_load(path.read_text())
    document["per_iteration"] = {2: {"data": {"prompts": str(tmp_path / "second.tar")}}}
    path.write_text(yaml.safe_dump(document))
    shape = run(csr, path, home, "--set", "num_iterations=2")
    assert shape["prompts"]["used"] == 12
    own = prompts_from_table(read_table(RunStore(home).prompts_path("run", 2), "prompts"))
    assert [Path(p.image.uri).read_bytes() for p in own] == [picture(n) for n in range(60, 66)]
    assert csr("verify", "run", "--home", home).status == 0


def test_another_reading_of_the_same_file_is_other_data(csr: Csr, tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "a.parquet", samples(4, 30))
    path, home = recipe(tmp_path, source), tmp_path / "home"
    document = yaml.safe_load(path.read_text())
    document["per_iteration"] = {2: {"data": {"instruction": "Describe it."}}}
    path.write_text(yaml.safe_dump(document))
    run(csr, path, home, "--set", "num_iterations=2")
    assert prompts_of(home)[0].text == "What is in picture 30?"
    own = prompts_from_table(read_table(RunStore(home).prompts_path("run", 2), "prompts"))
    assert own[0].text == "Describe it."


# ---------------------------------------------------------------- what a recipe says


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"format": "parket"}, "no component 'parket' in csr.readers. Did you mean 'parquet'?"),
        ({"format": "csr", "instruction": "x"}, "data.instruction would have no effect on data in "
         "the format 'csr'"),
        ({"format": "coco", "columns": {"id": "x"}}, "data.columns would have no effect"),
        ({"format": "webdataset", "images": "x"}, "data.images would have no effect"),
        ({"columns": {"input": "q"}, "instruction": "x"}, "data.columns.input would have no"),
        ({"columns": {"imagge": "q"}}, "unknown setting. Did you mean 'image'?"),
        ({"instruction": ""}, "at least 1 character"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_mean_it(
    csr: Csr, tmp_path: Path, data: dict[str, Any], words: str
) -> None:
    answer = csr("validate", recipe(tmp_path, "nowhere", **data))
    assert answer.status == 2
    assert words in answer.err


def test_a_recipe_is_valid_before_its_data_are_here(csr: Csr, tmp_path: Path) -> None:
    columns = {"image": "picture", "input": "question"}
    path = recipe(tmp_path, "hf:owner/name:all@test", columns=columns)
    answer = csr("validate", path, "--json")
    assert answer.status == 0
    data = answer.json()["recipe"]["data"]
    assert data["prompts"] == "hf:owner/name:all@test"
    assert data["columns"]["image"] == "picture"


def test_every_recipe_of_the_page_is_understood() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data_formats.md").read_text()
    found = re.findall(r"^```\n(data:\n.*?)```$", page, re.MULTILINE | re.DOTALL)
    assert len(found) == 9
    for text in found:
        data = DataConfig.model_validate(yaml.safe_load(text)["data"])
        assert data.prompts


def test_a_pattern_is_made_absolute(csr: Csr, tmp_path: Path, monkeypatch: Any) -> None:
    path = recipe(tmp_path, "shards/*.tar")
    monkeypatch.chdir(tmp_path)
    data = csr("validate", path, "--json").json()["recipe"]["data"]
    assert data["prompts"] == str(tmp_path / "shards/*.tar")


def test_data_of_two_kinds_and_of_none(csr: Csr, tmp_path: Path) -> None:
    (tmp_path / "mixed").mkdir()
    write_parquet(tmp_path / "mixed" / "00000.parquet", samples(1))
    with webdataset.TarWriter(str(tmp_path / "mixed" / "00000.tar")) as writer:
        writer.write({"__key__": "1", "png": picture(1), "txt": "What?"})
    answer = csr("run", recipe(tmp_path, tmp_path / "mixed"), "--home", tmp_path / "home")
    assert answer.status == 2
    assert "may be read as parquet or webdataset. Say in data.format which" in answer.err
    (tmp_path / "empty").mkdir()
    for place, words in (
        ("empty", "is no file, and no folder that holds .jsonl or .json files"),
        ("none", "does not exist"),
    ):
        answer = csr("run", recipe(tmp_path, tmp_path / place), "--home", tmp_path / "home")
        assert answer.status == 2
        assert words in answer.err


def test_images_by_path_need_a_folder(csr: Csr, tmp_path: Path) -> None:
    path = recipe(tmp_path, tmp_path / "data" / "train.jsonl")
    answer = csr("run", path, "--home", tmp_path / "home")
    assert answer.status == 2
    assert "by its path, and there is no data.images" in answer.err


def test_records_are_counted_for_a_plan(tmp_path: Path) -> None:
    def count(place: object, **more: Any) -> int | None:
        return count_records(PromptFiles(prompts=str(place), **more))

    assert count(write_parquet(tmp_path / "a.parquet", samples(7))) == 7
    turns = [{"from": speaker, "value": "x"} for speaker in ("human", "gpt", "human")]
    record = {"id": 1, "image": "a.png", "conversations": turns}
    (tmp_path / "a.json").write_text(json.dumps([record, record]))
    assert count(tmp_path / "a.json") == 2
    assert count(write_coco(tmp_path / "coco", 3), instruction="x") == 3
    assert count(tmp_path / "coco") is None
    assert count("hf:owner/name") is None
    assert count(tmp_path / "none*") is None
