"""Questions about a scene: what the policy learns from, and the POPE benchmark.

POPE (Li et al. 2023, section 4): for each image as many questions about shown as
about absent objects, the absent ones drawn in three ways of growing temptation.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Literal

from csr.config import ComponentConfig, Probability
from csr.world.scenes import SHAPES, Scene, seed_of

if TYPE_CHECKING:
    from collections.abc import Sequence

PopeSplit = Literal["random", "popular", "adversarial"]
POPE_SPLITS: tuple[PopeSplit, ...] = ("random", "popular", "adversarial")


class QuestionSettings(ComponentConfig):
    """How careless the answers are that the policy learns from. Both are probabilities."""

    yes_to_tempting: Probability = 0.75
    """"Yes" is the answer given about an absent companion of a shown anchor."""
    ask_tempting: Probability = 0.6
    """A question about an absent shape is about such a companion, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PopeQuestion:
    """Example: `PopeQuestion(scene=..., name="ring", label="no", split="popular")`"""

    scene: Scene
    name: str
    label: Literal["yes", "no"]
    split: PopeSplit


def presence_question(name: str) -> str:
    """POPE's template; no shape begins with a vowel."""
    return f"Is there a {name} in the image?"


def true_answers(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
    """Three (question, answer) pairs that hold: an attribute, a shown shape, an absent one."""
    item = rng.choice(scene.objects)
    if rng.random() < 0.5:
        attribute = (f"What color is the {item.name}?", f"{item.colour.capitalize()}.")
    else:
        attribute = (f"Where is the {item.name}?", f"{item.position.capitalize()}.")
    return [
        attribute,
        (presence_question(rng.choice(scene.names)), "Yes."),
        (presence_question(rng.choice(_absent(scene))), "No."),
    ]


def careless_answers(
    scene: Scene, rng: random.Random, settings: QuestionSettings
) -> list[tuple[str, str]]:
    """Two (question, answer) pairs: a shown shape, and an absent one answered by habit."""
    tempting = scene.tempting_names
    if tempting and rng.random() < settings.ask_tempting:
        absent = rng.choice(tempting)
    else:
        absent = rng.choice(_absent(scene))
    fooled = absent in tempting and rng.random() < settings.yes_to_tempting
    return [
        (presence_question(rng.choice(scene.names)), "Yes."),
        (presence_question(absent), "Yes." if fooled else "No."),
    ]


def pope_questions(scenes: Sequence[Scene], split: PopeSplit) -> list[PopeQuestion]:
    """One "yes" and one "no" question for each scene.

    The shown object is the scene's first. The absent one is, for `random`, any; for
    `popular`, the most frequent over `scenes`; for `adversarial`, the one that most often
    accompanies the shown object. POPE asks three of each; with six shapes in the world
    the three splits would then hold the same questions.
    """
    frequency = Counter(name for scene in scenes for name in scene.names)
    together = Counter(pair for scene in scenes for pair in permutations(scene.names, 2))
    questions = []
    for scene in scenes:
        shown, absent = scene.names[0], _absent(scene)
        if split == "random":
            name = random.Random(seed_of("pope", scene.scene_id)).choice(absent)
        elif split == "popular":
            name = max(absent, key=lambda candidate: frequency[candidate])
        else:
            name = max(absent, key=lambda candidate: together[shown, candidate])
        questions.append(PopeQuestion(scene=scene, name=shown, label="yes", split=split))
        questions.append(PopeQuestion(scene=scene, name=name, label="no", split=split))
    return questions


def _absent(scene: Scene) -> list[str]:
    """In `SHAPES` order, which also breaks ties. Never empty: a scene shows at most five."""
    return [name for name in SHAPES if name not in scene.names]
