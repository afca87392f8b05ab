"""What is said of a scene: the truth, and what a careless annotator writes.

The careless caption is the world's source of hallucination: a companion that is
not there is mentioned because it often is, and colours and positions drift to the
typical ones. A policy trained on such captions speaks from its prior.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csr.config import ComponentConfig, Probability
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
    from collections.abc import Sequence

DESCRIBE = "Describe the image."
DESCRIBE_VARIANTS = (DESCRIBE, "Describe this image.", "What is in the image?")
TEMPLATES = (
    "A {what} is at the {position}.",
    "There is a {what} in the {position}.",
)
_FIRST_TEMPLATE_SHARE = 0.7


class CaptionSettings(ComponentConfig):
    """How careless the captions are. All are probabilities."""

    omit: Probability = 0.04
    """A shown shape other than the anchor goes unmentioned."""
    hallucinate: Probability = 0.62
    """The anchor's absent companion is mentioned, in its typical colour and cell."""
    typical_colour: Probability = 0.5
    """A shown shape other than the anchor is given its typical colour, whatever it has."""
    typical_position: Probability = 0.5
    """A shown shape other than the anchor is put in its typical cell, wherever it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """What one sentence says; an attribute is None where the sentence names none."""

    name: str
    colour: str | None
    position: str | None


def phrase(item: SceneObject | Mention, template: int = 0) -> str:
    """What is said of a shape; without a position it is merely there, in either template.

    Example: `phrase(Mention(name="circle", colour="red", position=None))` is
    `"There is a red circle."`
    """
    what = f"{item.colour} {item.name}" if item.colour else item.name
    if item.position is None:
        return f"There is a {what}."
    return TEMPLATES[template].format(what=what, position=item.position)


def caption(objects: Sequence[SceneObject], rng: random.Random) -> str:
    """One sentence for each object, templates mixed.

    In the order of `SHAPES`: writers have a habitual order too, and a policy of this size
    learns to see much sooner when it need not guess whose turn it is.
    """
    told = sorted(objects, key=lambda item: SHAPES.index(item.name))
    return " ".join(phrase(item, _template(rng)) for item in told)


def true_caption(scene: Scene, rng: random.Random) -> str:
    """Every object as it is."""
    return caption(scene.objects, rng)


def careless_caption(scene: Scene, rng: random.Random, settings: CaptionSettings) -> str:
    """The anchor as it is; the rest by habit as much as by looking."""
    anchor, *others = scene.objects
    told = [by_habit(item, rng, settings) for item in others if rng.random() >= settings.omit]
    companion = COMPANION[anchor.name]
    if companion not in scene.names and rng.random() < settings.hallucinate:
        told.append(typical(companion))
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


def by_habit(item: SceneObject, rng: random.Random, settings: CaptionSettings) -> SceneObject:
    """The shape as a writer tells it who looks only now and then."""
    usual = typical(item.name)
    colour = usual.colour if rng.random() < settings.typical_colour else item.colour
    position = usual.position if rng.random() < settings.typical_position else item.position
    return SceneObject(name=item.name, colour=colour, position=position)


def _template(rng: random.Random) -> int:
    return 0 if rng.random() < _FIRST_TEMPLATE_SHARE else 1
