"""What images show, found by what a run's recipe names."""

import json
from pathlib import Path

import pytest

from csr.world.build import world_path
from csr.world.dataset import training_facts, write_dataset
from csr.world.scenes import sample_scenes
from csr.world.settings import Config
from flows.truth import truth_of
from tests.reported_run import SCENE, VOCABULARY


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """Of a benchmark whose second record does not say what its image shows."""
    records = [
        {"id": "a", "image": "one.png", "input": "What?", "objects": SCENE},
        {"id": "b", "image": "two.png", "input": "What?"},
        {"id": "c", "image": "three.png", "input": "What?", "objects": ["circle"]},
    ]
    (tmp_path / "heldout.json").write_text(json.dumps(records))
    (tmp_path / "words.json").write_text(json.dumps(VOCABULARY))
    return {
        "name": "any",
        "prompts": str(tmp_path / "heldout.json"),
        "images": str(tmp_path / "images"),
        "vocabulary": str(tmp_path / "words.json"),
    }


def test_a_benchmark_tells_of_its_images(settings: dict[str, str], tmp_path: Path) -> None:
    truth = truth_of({"evaluation": [{"name": "other"}, settings], "critic": None})
    assert truth.problems == []
    image = str(tmp_path / "images" / "one.png")
    known = truth.of(image)
    assert known is not None
    assert known.num_absent("A circle, two rings. A square, a square.") == 2
    marks = truth.marks("A blue circle.", image)
    assert marks is not None
    assert [(mark.kind, mark.name) for mark in marks] == [("colour", "blue")]
    assert truth.marks("A red circle.", image) == ()
    for unknown in ("two.png", "three.png", "four.png"):
        assert truth.marks("A blue circle.", str(tmp_path / "images" / unknown), "b") is None


def test_a_critic_tells_of_its_prompts(settings: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_text(json.dumps({"id": 7, "objects": SCENE}) + "\n")
    facts = str(tmp_path / "facts.jsonl")
    critic = {"name": "any", "facts": facts, "vocabulary": settings["vocabulary"]}
    truth = truth_of({"critic": critic})
    marks = truth.marks("A square.", "/anywhere.png", "7")
    assert marks is not None
    assert [mark.name for mark in marks] == ["square"]
    assert truth.marks("A square.", "/anywhere.png", "8") is None


@pytest.mark.parametrize("content", ["{", "[]", '{"objects": {}}'])
def test_what_cannot_be_read_is_told(settings: dict[str, str], content: str) -> None:
    Path(settings["vocabulary"]).write_text(content)
    truth = truth_of({"evaluation": [settings]})
    [problem] = truth.problems
    assert settings["vocabulary"] in problem
    assert truth.by_image == {}
    Path(settings["vocabulary"]).unlink()
    assert "does not exist" in truth_of({"evaluation": [settings]}).problems[0]


def test_the_embedded_world_knows_its_training_images(tmp_path: Path) -> None:
    world = Config.micro()
    data = world_path(world, tmp_path) / "data"
    scenes = {
        split: sample_scenes(split, 3, world.scenes) for split in ("train", "validation", "heldout")
    }
    write_dataset(data, **scenes, num_pope_scenes=1, progress=lambda done, total: None)
    assert "objects" not in (data / "train.jsonl").read_text()
    config = {"world": world.model_dump(mode="json"), "data": {"images": str(data / "images")}}
    truth = truth_of(config)
    assert len(truth.by_image) == world.num_train
    facts = training_facts(3, world.scenes)
    for scene in scenes["train"]:
        known = truth.of(str(data / "images" / f"{scene.scene_id}.png"))
        assert known is not None
        assert known.scene == facts[f"{scene.scene_id}.png"]
        shown = [(item.name, item.colour, item.position) for item in scene.objects]
        assert shown == [tuple(thing.values()) for thing in known.scene]
    held_out = scenes["heldout"][0].scene_id
    assert truth.of(str(data / "images" / f"{held_out}.png")) is None
    other = config | {"data": {"images": str(tmp_path / "mine" / "data" / "images")}}
    assert truth_of(other).by_image == {}
    strange = config | {"world": {"of": "another release"}}
    assert truth_of(strange).by_image == {}
