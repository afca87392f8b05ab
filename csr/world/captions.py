"""What is said of a scene: the truth, and what a careless annotator writes.

The careless caption is the world's source of hallucination: a companion that is
not there is mentioned because it often is, and colours and positions drift to the
typical ones. A policy trained on such captions speaks from its prior.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csr.config import ComponentConfig
from csr.world.scenes import (
    COLOURS,
    COMPANION,
    POSITIONS,
    SHAPES,
    TYPICAL_COLOUR,
    TYPICAL_POSITION,
    Scene,
    SceneObject,
)

if TYPE_CHECKING:
    import random

DESCRIBE = "Describe the image."
DESCRIBE_VARIANTS = (DESCRIBE, "Describe this image.", "What is in the image?")
TEMPLATES = (
    "A {colour} {name} is at the {position}.",
    "There is a {colour} {name} in the {position}.",
)
_FIRST_TEMPLATE_SHARE = 0.7


class CaptionSettings(ComponentConfig):
    """How careless the captions are. All are probabilities."""

    omit: float = 0.04
    """A shown shape other than the anchor goes unmentioned."""
    hallucinate: float = 0.62
    """The anchor's absent companion is mentioned, in its typical colour and cell."""
    typical_colour: float = 0.5
    """A shown shape other than the anchor is given its typical colour, whatever it has."""
    typical_position: float = 0.5
    """A shown shape other than the anchor is put in its typical cell, wherever it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """What one sentence says; an attribute is None where the sentence names none."""

    name: str
    colour: str | None
    position: str | None


def sentence(item: SceneObject, template: int = 0) -> str:
    """Example: `"A red circle is at the top left."`"""
    return TEMPLATES[template].format(colour=item.colour, name=item.name, position=item.position)


def caption(objects: tuple[SceneObject, ...], rng: random.Random) -> str:
    """One sentence for each object in the order given, templates mixed."""
    return " ".join(sentence(item, _template(rng)) for item in objects)


def true_caption(scene: Scene, rng: random.Random) -> str:
    """Every object as it is: anchor first, the rest in random order."""
    rest = list(scene.objects[1:])
    rng.shuffle(rest)
    return caption((scene.objects[0], *rest), rng)


def careless_caption(scene: Scene, rng: random.Random, settings: CaptionSettings) -> str:
    """The anchor as it is; the rest by habit as much as by looking."""
    anchor, *others = scene.objects
    told = [_by_habit(item, rng, settings) for item in others if rng.random() >= settings.omit]
    companion = COMPANION[anchor.name]
    if companion not in scene.names and rng.random() < settings.hallucinate:
        told.append(typical(companion))
    rng.shuffle(told)
    return caption((anchor, *told), rng)


def typical(name: str) -> SceneObject:
    """The shape as the prior imagines it."""
    return SceneObject(name=name, colour=TYPICAL_COLOUR[name], position=TYPICAL_POSITION[name])


def mentions(text: str) -> list[Mention]:
    """The shapes that a caption names, sentence by sentence, with the attributes beside them."""
    found = []
    for part in text.lower().split("."):
        words = re.findall(r"[a-z]+", part)
        colour = next((word for word in words if word in COLOURS), None)
        position = next((name for name in POSITIONS if name in " ".join(words)), None)
        names = [word for word in words if word in SHAPES]
        found += [Mention(name=name, colour=colour, position=position) for name in names]
    return found


def _by_habit(item: SceneObject, rng: random.Random, settings: CaptionSettings) -> SceneObject:
    usual = typical(item.name)
    colour = usual.colour if rng.random() < settings.typical_colour else item.colour
    position = usual.position if rng.random() < settings.typical_position else item.position
    return SceneObject(name=item.name, colour=colour, position=position)


def _template(rng: random.Random) -> int:
    return 0 if rng.random() < _FIRST_TEMPLATE_SHARE else 1
