"""Where a recipe's files come from: the page names all of them, and its code makes them."""

import json
from pathlib import Path

import pytest
import yaml

from csr.evaluation._image_ids import read_image_ids
from csr.evaluation.pope import Config, build
from tests.coco_files import write_coco
from tests.documents import ROOT, blocks
from tests.pope_files import write_pope

PAGE = ROOT / "docs" / "evaluation.md"
OWN = {"data/prompts.jsonl", "data/images", "data/heldout.jsonl"}
"""Files of recipes/own_data.yaml: a user's."""


def named(value: object) -> set[str]:
    """The paths below `data` in a recipe's settings."""
    if isinstance(value, dict):
        return {path for inner in value.values() for path in named(inner)}
    if isinstance(value, list):
        return {path for inner in value for path in named(inner)}
    return {value} if isinstance(value, str) and value.startswith("data/") else set()


def code(words: str) -> str:
    [text] = [b.text for b in blocks(PAGE) if b.language == "python" and words in b.text]
    return text


def test_every_file_that_a_recipe_names_is_told() -> None:
    recipes = [yaml.safe_load(path.read_text()) for path in (ROOT / "recipes").glob("*.yaml")]
    paths = set().union(*map(named, recipes)) - OWN
    assert len(paths) > 10
    section = PAGE.read_text().partition("## Where the files come from")[2].partition("\n## ")[0]
    known = {"data/coco", "data/coco/val2014", "data/coco/train2017", "data/vqa_x_val.jsonl"}
    assert sorted(path for path in paths - known if f"`{path}`" not in section) == []
    for name in (path.rpartition("/")[2] for path in known - {"data/coco"}):
        assert f"`{name}`" in section


def test_the_list_of_images_is_drawn_once_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "coco"
    folder.mkdir(parents=True)
    write_coco(folder)
    monkeypatch.chdir(tmp_path)
    exec(code("chair_image_ids").replace("500", "2"), {})
    ids = read_image_ids(tmp_path / "data" / "chair_image_ids.txt")
    assert len(ids) == 2
    assert set(ids) < {"9", "42", "139"}


def test_the_suffix_is_put_behind_every_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    images = write_pope(tmp_path / "data" / "pope")
    monkeypatch.chdir(tmp_path)
    exec(code("SUFFIX"), {})
    path = tmp_path / "data" / "pope_val2014.jsonl"
    assert len(path.read_text().splitlines()) == 12
    assert json.loads(path.read_text().splitlines()[4])["split"] == "popular"
    prompts = build(Config(prompts=str(path), images=str(images))).prompts()
    assert {prompt.text.partition("image? ")[2] for prompt in prompts} <= {
        "Please answer this question with one word.",
        "",  # of the question that is misspelt: about an "imange"
    }
    assert all(prompt.text.endswith("with one word.") for prompt in prompts)
