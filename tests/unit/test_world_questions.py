"""Training questions and the POPE benchmark."""

import random
from collections import Counter

import pytest

from csr.world.dataset import pope_records, vocabulary
from csr.world.questions import (
    POPE_SPLITS,
    QuestionSettings,
    careless_answers,
    pope_questions,
    presence_question,
    true_answers,
)
from csr.world.scenes import Scene, SceneObject, SceneSettings, sample_scenes


def scene_of(*names: str) -> Scene:
    cells = ("top left", "top center", "top right", "middle left")
    objects = tuple(
        SceneObject(name=name, colour="red", position=cell)
        for name, cell in zip(names, cells, strict=False)
    )
    return Scene(scene_id="-".join(names), objects=objects, noise_seed=0)


def test_the_template_is_popes():
    assert presence_question("ring") == "Is there a ring in the image?"


@pytest.mark.parametrize("split", POPE_SPLITS)
def test_half_of_the_questions_are_about_absent_objects(split):
    questions = pope_questions(sample_scenes("pope-test", 80, SceneSettings()), split)
    assert Counter(question.label for question in questions) == {"yes": 80, "no": 80}
    for question in questions:
        assert (question.name in question.scene.names) == (question.label == "yes")
        assert question.split == split


def test_absent_objects_by_hand():
    """Frequencies: circle 3, ring 2, square 2, cross 1. Beside a circle: ring 2, square 1, cross 1.

    The circle and cross of the last scene lack ring and square, equally frequent; the ring
    keeps more company with the circle, and in the tie of frequencies comes second.
    """
    scenes = [
        scene_of("circle", "ring"),
        scene_of("circle", "ring", "square"),
        scene_of("diamond", "square"),
        scene_of("circle", "cross"),
    ]
    absent = {
        split: [question.name for question in pope_questions(scenes, split)][7]
        for split in ("popular", "adversarial")
    }
    assert absent == {"popular": "square", "adversarial": "ring"}


def test_the_world_tempts_most_in_the_adversarial_split():
    scenes = sample_scenes("heldout", 150, SceneSettings())
    tempting = {
        split: sum(
            question.name in question.scene.tempting_names
            for question in pope_questions(scenes, split)
        )
        for split in POPE_SPLITS
    }
    assert tempting["adversarial"] > 1.5 * tempting["random"]


def test_pope_records_cover_all_splits_with_unique_ids():
    records = pope_records(sample_scenes("heldout", 10, SceneSettings()))
    assert len({record["id"] for record in records}) == len(records) == 3 * 2 * 10
    assert records[0]["input"].startswith("Is there a ")


def test_true_answers_hold():
    for seed, scene in enumerate(sample_scenes("answers", 100, SceneSettings())):
        attribute, shown, absent = true_answers(scene, random.Random(seed))
        colours = {
            (f"What color is the {item.name}?", f"{item.colour.capitalize()}.")
            for item in scene.objects
        }
        places = {
            (f"Where is the {item.name}?", f"{item.position.capitalize()}.")
            for item in scene.objects
        }
        assert attribute in colours | places
        assert (shown[1], absent[1]) == ("Yes.", "No.")
        assert shown[0] in {presence_question(name) for name in scene.names}
        assert absent[0] not in {presence_question(name) for name in scene.names}


@pytest.mark.parametrize(("yes", "answer"), [(0.0, "No."), (1.0, "Yes.")])
def test_the_prior_answers_for_tempting_shapes_only(yes, answer):
    settings = QuestionSettings(yes_to_tempting=yes, ask_tempting=1.0)
    tempted, calm = scene_of("circle", "ring"), scene_of("circle", "square")
    assert careless_answers(tempted, random.Random(0), settings)[1] == (
        "Is there a square in the image?",
        answer,
    )
    assert careless_answers(calm, random.Random(0), settings)[1][1] == "No."


def test_the_vocabulary_names_plurals_and_attributes():
    words = vocabulary()
    assert words["objects"]["cross"] == ["cross", "crosses"]
    assert words["objects"]["circle"] == ["circle", "circles"]
    assert len(words["objects"]) == 6
    assert words["attributes"]["position"]["top left"] == ["top left"]
    assert len(words["attributes"]["colour"]) == 6
