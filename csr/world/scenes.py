"""What the tiny world can show: up to five coloured shapes on a 3x3 grid.

Scenes carry the correlations that tempt a language model to speak without
looking: every anchor shape has a companion that is often beside it, and every
shape has a typical colour and a typical cell.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from csr.config import ComponentConfig, Probability

ANCHORS = ("circle", "triangle", "cross")
COMPANION = {"circle": "square", "triangle": "ring", "cross": "diamond"}
SHAPES = (*ANCHORS, *COMPANION.values())
COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
POSITIONS = tuple(f"{row} {column}" for row in ROWS for column in COLUMNS)
"""Cells in reading order. No name is part of another, so text can be searched for them."""

TYPICAL_COLOUR = dict(zip(SHAPES, COLOURS, strict=True))
TYPICAL_POSITION = {
    "circle": "top center",
    "triangle": "middle left",
    "cross": "bottom center",
    "square": "bottom right",
    "ring": "top left",
    "diamond": "middle right",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
    """One shape. Example: `SceneObject(name="circle", colour="red", position="top left")`"""

    name: str
    colour: str
    position: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One image's content; the anchor comes first, names and positions are distinct.

    Example: `Scene(scene_id="train-00007", objects=(SceneObject(...), ...), noise_seed=91)`
    """

    scene_id: str
    objects: tuple[SceneObject, ...]
    noise_seed: int
    """Decides background, jitter, sizes and pixel noise."""

    @property
    def names(self) -> tuple[str, ...]:
        """The shapes shown, anchor first."""
        return tuple(item.name for item in self.objects)

    @property
    def tempting_names(self) -> tuple[str, ...]:
        """Companions that are absent although their anchor is shown: what the prior adds."""
        names = self.names
        return tuple(
            companion
            for anchor, companion in COMPANION.items()
            if anchor in names and companion not in names
        )


class SceneSettings(ComponentConfig):
    """How often a scene follows the world's habits. All are probabilities."""

    companion_probability: Probability = 0.55
    """The anchor's companion is shown."""
    distractor_probability: Probability = 0.4
    """A given other companion shape is shown; lower, so that company means something."""
    second_anchor_probability: Probability = 0.3
    """A second anchor shape is shown."""
    typical_colour_probability: Probability = 0.5
    """A shape other than the anchor has its typical colour; else any colour, evenly."""
    typical_position_probability: Probability = 0.5
    """A shape other than the anchor is in its typical cell where free; else in any free cell."""


def seed_of(*parts: str | int) -> int:
    """A 63-bit seed that any change of any part changes. Example: `seed_of("train", 7)`"""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def sample_scene(split: str, index: int, settings: SceneSettings) -> Scene:
    """Scene `index` of `split`: a function of its arguments alone.

    Splits draw from different seeds, so no two of them share a scene or its noise.
    """
    rng = random.Random(seed_of("scene", split, index))
    anchor = rng.choice(ANCHORS)
    others = _others(rng, anchor, settings)
    free = list(POSITIONS)
    position = rng.choice(free)
    free.remove(position)
    objects = [SceneObject(name=anchor, colour=rng.choice(COLOURS), position=position)]
    for name in others:
        position = _position(rng, name, free, settings.typical_position_probability)
        free.remove(position)
        colour = _colour(rng, name, settings.typical_colour_probability)
        objects.append(SceneObject(name=name, colour=colour, position=position))
    return Scene(
        scene_id=f"{split}-{index:05d}",
        objects=tuple(objects),
        noise_seed=seed_of("noise", split, index),
    )


def sample_scenes(split: str, count: int, settings: SceneSettings) -> list[Scene]:
    """Scenes 0 to `count` - 1 of `split`."""
    return [sample_scene(split, index, settings) for index in range(count)]


def _others(rng: random.Random, anchor: str, settings: SceneSettings) -> list[str]:
    """The shapes beside the anchor, in random order."""
    companion = COMPANION[anchor]
    probabilities = dict.fromkeys(COMPANION.values(), settings.distractor_probability)
    probabilities[companion] = settings.companion_probability
    others = [name for name, probability in probabilities.items() if rng.random() < probability]
    if rng.random() < settings.second_anchor_probability:
        others.append(rng.choice([name for name in ANCHORS if name != anchor]))
    rng.shuffle(others)
    return others


def _position(rng: random.Random, name: str, free: list[str], typical: float) -> str:
    if rng.random() < typical and TYPICAL_POSITION[name] in free:
        return TYPICAL_POSITION[name]
    return rng.choice(free)


def _colour(rng: random.Random, name: str, typical: float) -> str:
    return TYPICAL_COLOUR[name] if rng.random() < typical else rng.choice(COLOURS)
