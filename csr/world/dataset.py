"""Writes the world's data as an ordinary dataset: PNG images and JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csr.world import method_data
from csr.world.captions import DESCRIBE
from csr.world.drawing import draw
from csr.world.questions import POPE_SPLITS, pope_questions, presence_question
from csr.world.scenes import COLOURS, POSITIONS, SHAPES, Scene, SceneSettings, sample_scenes

if TYPE_CHECKING:
    from collections.abc import Callable

_PLURAL = {"cross": "crosses"}


def write_dataset(
    directory: Path,
    *,
    train: Sequence[Scene],
    validation: Sequence[Scene],
    heldout: Sequence[Scene],
    num_pope_scenes: int,
    progress: Callable[[int, int], None],
) -> None:
    """Write images, the three splits, POPE over the first held-out scenes, and the vocabulary.

    Training records carry no ground truth: nothing may learn from it. Methods that start from
    more than prompts have files of their own.
    """
    _write_images(directory / "images", [*train, *validation, *heldout], progress)
    _write_lines(directory / "train.jsonl", [_prompt(scene) for scene in train])
    for name, records in {
        "train_references": method_data.references(train),
        "train_questions": method_data.questions(train),
        "train_rationales": method_data.rationales(train),
        "train_rationale_facts": method_data.rationale_facts(train),
        "heldout_rationales": method_data.explained(heldout),
    }.items():
        _write_lines(directory / f"{name}.jsonl", records)
    _write_lines(directory / "validation.jsonl", [_with_objects(scene) for scene in validation])
    _write_lines(directory / "heldout_captions.jsonl", [_with_objects(scene) for scene in heldout])
    _write_lines(directory / "heldout_pope.jsonl", pope_records(heldout[:num_pope_scenes]))
    (directory / "vocabulary.json").write_text(json.dumps(vocabulary(), indent=2) + "\n")


def pope_records(scenes: Sequence[Scene]) -> list[dict[str, Any]]:
    """All three splits, one after the other."""
    records = []
    for split in POPE_SPLITS:
        for number, question in enumerate(pope_questions(scenes, split)):
            records.append(
                {
                    "id": f"pope-{split}-{number:04d}",
                    "image": image_name(question.scene),
                    "input": presence_question(question.name),
                    "label": question.label,
                    "split": split,
                }
            )
    return records


def vocabulary() -> dict[str, Any]:
    """Every object and attribute value with the forms in which text may name it."""
    return {
        "objects": {name: [name, _PLURAL.get(name, f"{name}s")] for name in SHAPES},
        "attributes": {
            "colour": {name: [name] for name in COLOURS},
            "position": {name: [name] for name in POSITIONS},
        },
    }


def image_name(scene: Scene) -> str:
    """The image's file name, relative to the images' directory."""
    return f"{scene.scene_id}.png"


def training_facts(num_train: int, settings: SceneSettings) -> dict[str, list[dict[str, str]]]:
    """Image name -> what it shows, for people who look at a run.

    The scenes are sampled anew from the settings: no file holds what training must not see.
    """
    scenes = sample_scenes("train", num_train, settings)
    return {image_name(scene): scene_facts(scene) for scene in scenes}


def scene_facts(scene: Scene) -> list[dict[str, str]]:
    """What the image shows, in the vocabulary's names."""
    return [method_data.facts_of(item) for item in scene.objects]


def _prompt(scene: Scene) -> dict[str, Any]:
    return {"id": scene.scene_id, "image": image_name(scene), "input": DESCRIBE}


def _with_objects(scene: Scene) -> dict[str, Any]:
    return {**_prompt(scene), "objects": scene_facts(scene)}


def _write_images(
    directory: Path, scenes: Sequence[Scene], progress: Callable[[int, int], None]
) -> None:
    from PIL import Image

    directory.mkdir(parents=True)
    for done, scene in enumerate(scenes, start=1):
        Image.fromarray(draw(scene)).save(directory / image_name(scene))
        progress(done, len(scenes))


def _write_lines(file: Path, records: Sequence[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
