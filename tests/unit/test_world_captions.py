"""What is said of a scene, with the truth worked by hand."""

import random

import pytest

from csr.world.captions import (
    CaptionSettings,
    Mention,
    careless_caption,
    mentions,
    phrase,
    true_caption,
)
from csr.world.measure import caption_quality
from csr.world.scenes import Scene, SceneObject

GREEN_CIRCLE = SceneObject(name="circle", colour="green", position="middle center")
BLUE_CROSS = SceneObject(name="cross", colour="blue", position="top right")
SCENE = Scene(scene_id="by-hand", objects=(GREEN_CIRCLE, BLUE_CROSS), noise_seed=1)
"""The circle's companion, the square, is absent. A cross is typically blue, at the bottom center;
a square yellow, at the bottom right."""


def careless(**probabilities: float) -> CaptionSettings:
    nothing = {"omit": 0.0, "hallucinate": 0.0, "typical_colour": 0.0, "typical_position": 0.0}
    return CaptionSettings(**(nothing | probabilities))


def test_sentences():
    assert phrase(GREEN_CIRCLE) == "A green circle is at the middle center."
    assert phrase(GREEN_CIRCLE, 1) == "There is a green circle in the middle center."


def test_a_true_caption_names_all_objects_as_they_are():
    told = mentions(true_caption(SCENE, random.Random(0)))
    assert told == [
        Mention(name="circle", colour="green", position="middle center"),
        Mention(name="cross", colour="blue", position="top right"),
    ]


def test_a_careless_caption_without_carelessness_is_true():
    assert mentions(careless_caption(SCENE, random.Random(3), careless())) == mentions(
        true_caption(SCENE, random.Random(0))
    )


@pytest.mark.parametrize(
    ("carelessness", "second"),
    [
        ({"omit": 1.0}, None),
        ({"typical_colour": 1.0}, Mention(name="cross", colour="blue", position="top right")),
        (
            {"typical_position": 1.0},
            Mention(name="cross", colour="blue", position="bottom center"),
        ),
        (
            {"omit": 1.0, "hallucinate": 1.0},
            Mention(name="square", colour="yellow", position="bottom right"),
        ),
    ],
)
def test_each_carelessness_changes_what_it_says(carelessness, second):
    told = mentions(careless_caption(SCENE, random.Random(0), careless(**carelessness)))
    assert told[0] == Mention(name="circle", colour="green", position="middle center")
    assert told[1:] == ([second] if second else [])


def test_a_shown_companion_is_not_hallucinated_again():
    square = SceneObject(name="square", colour="red", position="top left")
    scene = Scene(scene_id="by-hand", objects=(GREEN_CIRCLE, square), noise_seed=1)
    told = mentions(careless_caption(scene, random.Random(0), careless(hallucinate=1.0)))
    assert [mention.name for mention in told] == ["circle", "square"]


def test_mentions_keep_unknown_attributes_unknown():
    text = "I see a circle. The sky is blue. A red ring and a cross at the top left!"
    assert mentions(text) == [
        Mention(name="circle", colour=None, position=None),
        Mention(name="ring", colour="red", position="top left"),
        Mention(name="cross", colour="red", position="top left"),
    ]
    assert mentions("") == []


def test_caption_quality_by_hand():
    """Two captions: 4 mentions, 1 of them false; 3 of 4 objects recalled."""
    captions = [
        # right circle, wrong position for the cross, a square that is not there
        "A green circle is at the middle center. A blue cross is at the top left. "
        "A yellow square is at the bottom right.",
        # wrong colour for the circle, the cross unmentioned
        "A red circle is at the middle center.",
    ]
    quality = caption_quality([SCENE, SCENE], captions)
    assert quality == pytest.approx(
        {
            "chair_s": 1 / 2,
            "chair_i": 1 / 4,
            "recall": 3 / 4,
            "mean_response_sentences": 4 / 2,
            "colour_accuracy": 2 / 3,
            "position_accuracy": 2 / 3,
            "fully_right": 1 / 4,
            "repeated": 0.0,
        }
    )


def test_repeated_mentions_are_counted():
    text = "A green circle is at the middle center. " * 2
    assert caption_quality([SCENE], [text])["repeated"] == 1 / 2
