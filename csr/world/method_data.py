"""Training data for methods that start from more than prompts: references, questions, rationales.

Each is a file of its own, so that nothing learns from ground truth which was not asked to.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from csr.world.abilities import EXPLAIN
from csr.world.captions import DESCRIBE, phrase, true_caption
from csr.world.questions import presence_question
from csr.world.scenes import SHAPES, Scene, SceneObject, seed_of

Record = dict[str, Any]


def references(scenes: Sequence[Scene]) -> list[Record]:
    """Descriptions: each prompt with the true caption."""
    return [
        {
            **_record(scene, scene.scene_id, DESCRIBE),
            "reference": true_caption(scene, random.Random(seed_of("reference", scene.scene_id))),
        }
        for scene in scenes
    ]


def questions(scenes: Sequence[Scene]) -> list[Record]:
    """Two answered questions a scene: about a shape that is there, and one that is not."""
    records = []
    for scene in scenes:
        absent = [name for name in SHAPES if name not in scene.names]
        name = random.Random(seed_of("absent", scene.scene_id)).choice(absent)
        for kind, asked, answer in (("yes", asked_about(scene).name, "Yes."), ("no", name, "No.")):
            record = _record(scene, f"{scene.scene_id}-{kind}", presence_question(asked))
            records.append({**record, "reference": answer})
    return records


def rationales(scenes: Sequence[Scene]) -> list[Record]:
    """The questions whose answer is yes, each with what that rests on."""
    return [
        {
            **_record(scene, f"{scene.scene_id}-yes", presence_question(asked_about(scene).name)),
            "reference": phrase(asked_about(scene)),
        }
        for scene in scenes
    ]


def rationale_facts(scenes: Sequence[Scene]) -> list[Record]:
    """What a rationale must say to be true: the asked shape as it is."""
    return [
        {"id": f"{scene.scene_id}-yes", "objects": [facts_of(asked_about(scene))]}
        for scene in scenes
    ]


def explained(scenes: Sequence[Scene]) -> list[Record]:
    """Prompts for a rationale, with a reference and the facts, to measure on."""
    return [
        {
            **record,
            "input": EXPLAIN.format(question=record["input"], answer="Yes."),
            "objects": facts["objects"],
        }
        for record, facts in zip(rationales(scenes), rationale_facts(scenes), strict=True)
    ]


def asked_about(scene: Scene) -> SceneObject:
    """The shape that the scene's question is about."""
    return random.Random(seed_of("asked", scene.scene_id)).choice(scene.objects)


def facts_of(item: SceneObject) -> dict[str, str]:
    """A shape in the vocabulary's names."""
    return {"name": item.name, "colour": item.colour, "position": item.position}


def _record(scene: Scene, record_id: str, text: str) -> Record:
    return {"id": record_id, "image": f"{scene.scene_id}.png", "input": text}
