"""What a policy can be taught beside describing and answering, for methods that ask for more.

Large policies judge, explain and imagine by themselves; one of this size does only what it was
taught. Each ability is a prompt and the response to it, true in the alignment stage and as
careless as captions are in the instruction stage.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Literal

from csr.world.captions import (
    CaptionSettings,
    by_habit,
    caption,
    careless_caption,
    phrase,
    true_caption,
    typical,
)
from csr.world.scenes import COLOURS, POSITIONS, SHAPES, Scene, SceneObject

Ability = Literal["look", "imagine", "verify", "explain", "judge", "rewrite"]
"""`look`: describe carefully; `imagine`: describe more than there is; `verify`: say whether a
sentence is true; `explain`: say what an answer rests on; `judge`: choose the better of two
captions by the true one; `rewrite`: say a true caption again with one mistake, as JSON."""

LOOK = "Describe all of the image, part by part."
IMAGINE = "Describe the image and what is not in the image."
VERIFY = "{claim} Is it so?"
EXPLAIN = "{question} {answer} Describe it."
JUDGE = "{reference} 1: {response_1} 2: {response_2} Is it 1 or 2?"
REWRITE = "{reference} Say it again with one mistake, as JSON."
VERDICTS = ("[[1]]", "[[2]]")

_YES_TO_TYPICAL = 0.3
"""In the instruction stage, how often a false but typical claim is answered with yes."""

Exchange = tuple[str, str]
"""A prompt and its response."""


def exchange(
    ability: Ability, scene: Scene, rng: random.Random, habits: CaptionSettings | None
) -> Exchange:
    """One prompt about the scene, and what a writer of these habits responds; None is the truth.

    Who looks part by part, judges or rewrites is never careless.
    """
    return _EXCHANGES[ability](scene, rng, habits)


def num_mistakes(told: str, scene: Scene) -> int:
    """Sentences of the scene's true caption that `told` lacks, and its own that are no such."""
    truth = {phrase(item, template) for item in scene.objects for template in (0, 1)}
    said = [f"{sentence.strip()}." for sentence in told.split(".") if sentence.strip()]
    num_true = len(set(said) & truth)
    return len(said) - num_true + len(scene.objects) - num_true


def claim_about(scene: Scene, rng: random.Random) -> tuple[SceneObject, bool]:
    """Something that may be there, and whether it is. Half are true; false ones are tempting."""
    item = rng.choice(scene.objects)
    if rng.random() < 0.5:
        return item, True
    if rng.random() < 0.5:
        name = rng.choice(scene.tempting_names or [n for n in SHAPES if n not in scene.names])
        return typical(name), False
    return _altered(item, rng), False


def _altered(item: SceneObject, rng: random.Random) -> SceneObject:
    """Of another colour, or elsewhere."""
    colour, position = item.colour, item.position
    if rng.random() < 0.5:
        colour = rng.choice([other for other in COLOURS if other != item.colour])
    else:
        position = rng.choice([other for other in POSITIONS if other != item.position])
    return SceneObject(name=item.name, colour=colour, position=position)


def _look(scene: Scene, rng: random.Random, habits: CaptionSettings | None) -> Exchange:
    return LOOK, true_caption(scene, rng)


def _imagine(scene: Scene, rng: random.Random, habits: CaptionSettings | None) -> Exchange:
    absent = rng.choice(scene.tempting_names or [n for n in SHAPES if n not in scene.names])
    told = [by_habit(item, rng, habits) if habits else item for item in scene.objects[1:]]
    return IMAGINE, caption((scene.objects[0], *told, typical(absent)), rng)


def _verify(scene: Scene, rng: random.Random, habits: CaptionSettings | None) -> Exchange:
    item, holds = claim_about(scene, rng)
    fooled = habits and item == typical(item.name) and rng.random() < _YES_TO_TYPICAL
    claim = phrase(item, rng.randrange(2))
    return VERIFY.format(claim=claim), "Yes." if holds or fooled else "No."


def _explain(scene: Scene, rng: random.Random, habits: CaptionSettings | None) -> Exchange:
    item = rng.choice(scene.objects)
    told = by_habit(item, rng, habits) if habits else item
    question = f"Is there a {item.name} in the image?"
    prompt = EXPLAIN.format(question=question, answer="Yes.")
    return prompt, phrase(told, rng.randrange(2))


def _judge(scene: Scene, rng: random.Random, habits: CaptionSettings | None) -> Exchange:
    """Two careless captions that are not equally wrong."""
    mistakes = [0, 0]
    while mistakes[0] == mistakes[1]:
        told = [careless_caption(scene, rng, habits or CaptionSettings()) for _ in range(2)]
        mistakes = [num_mistakes(text, scene) for text in told]
    prompt = JUDGE.format(
        response_1=told[0], response_2=told[1], reference=true_caption(scene, rng)
    )
    return prompt, VERDICTS[mistakes[0] > mistakes[1]]


def _rewrite(scene: Scene, rng: random.Random, habits: CaptionSettings | None) -> Exchange:
    """The same sentences in the same order, one of them of another colour or place."""
    number = rng.randrange(len(scene.objects))
    old = scene.objects[number]
    new = _altered(old, rng)
    told = (*scene.objects[:number], new, *scene.objects[number + 1 :])
    seed = rng.getrandbits(64)
    reference, rewritten = (
        caption(objects, random.Random(seed)) for objects in (scene.objects, told)
    )
    edit = " for ".join(
        (new.colour, old.colour) if new.colour != old.colour else (new.position, old.position)
    )
    answer = {"rewritten": rewritten, "edits": [edit]}
    return REWRITE.format(reference=reference), json.dumps(answer)


_EXCHANGES: dict[Ability, Callable[[Scene, random.Random, CaptionSettings | None], Exchange]] = {
    "look": _look,
    "imagine": _imagine,
    "verify": _verify,
    "explain": _explain,
    "judge": _judge,
    "rewrite": _rewrite,
}
