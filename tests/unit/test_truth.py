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
def critic(tmp_path: Path) -> dict[str, str]:
    """The settings of a critic whose second and third record do not say what their images show."""
    records = [
        {"id": 7, "objects": SCENE},
        {"id": "b"},
        {"id": "c", "objects": ["circle"]},
    ]
    (tmp_path / "facts.json").write_text(json.dumps(records))
    (tmp_path / "words.json").write_text(json.dumps(VOCABULARY))
    return {
        "name": "any",
        "facts": str(tmp_path / "facts.json"),
        "vocabulary": str(tmp_path / "words.json"),
    }


def test_a_critic_tells_of_its_prompts(critic: dict[str, str]) -> None:
    truth = truth_of({"critic": critic})
    assert truth.problems == []
    marks = truth.marks("A blue circle. A square.", "/anywhere.png", "7")
    assert marks is not None
    assert [(mark.kind, mark.name) for mark in marks] == [("colour", "blue"), ("object", "square")]
    assert truth.marks("A red circle.", "/anywhere.png", "7") == ()
    for unknown in ("b", "c", "d"):
        assert truth.marks("A square.", "/anywhere.png", unknown) is None
    assert truth_of({"critic": None}).marks("A square.", "/anywhere.png", "7") is None


@pytest.mark.parametrize("content", ["{", "[]", '{"objects": {}}'])
def test_what_cannot_be_read_is_told(critic: dict[str, str], content: str) -> None:
    Path(critic["vocabulary"]).write_text(content)
    truth = truth_of({"critic": critic})
    [problem] = truth.problems
    assert critic["vocabulary"] in problem
    assert truth.by_prompt == {}
    Path(critic["vocabulary"]).unlink()
    assert "does not exist" in truth_of({"critic": critic}).problems[0]


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
