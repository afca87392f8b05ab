"""What images show, as far as a run's recipe leads to it: for people who look, never for training.

A critic may name a file with the objects of the images and a vocabulary of wordings. The embedded
world's training images are known from the settings that drew them. What held-out images show,
benchmarks know, and note beside the responses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from csr.errors import DataError
from csr.protocols import Json
from csr.records import Record, prompt_id, read_entries
from csr.truthfulness import FalseMention, SceneObject, false_mentions
from csr.vocabulary import SynonymTable, Vocabulary, read_vocabulary


@dataclass(frozen=True, slots=True)
class Known:
    """What one image shows, in the names of a vocabulary."""

    scene: Sequence[SceneObject]
    vocabulary: Vocabulary


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of the images that a run has to do with."""

    by_image: Mapping[str, Known] = field(default_factory=dict)
    """Absolute path of an image -> what it shows."""
    by_prompt: Mapping[str, Known] = field(default_factory=dict)
    """Prompt id -> what its image shows."""
    problems: Sequence[str] = ()
    """Why facts that the recipe names are not used."""

    def of(self, image_path: str, prompt_id: str = "") -> Known | None:
        """What the image shows; None where nothing says so."""
        return self.by_image.get(image_path) or self.by_prompt.get(prompt_id)

    def marks(
        self, text: str, image_path: str, prompt_id: str = ""
    ) -> tuple[FalseMention, ...] | None:
        """The words that the image contradicts; None where nobody can tell."""
        known = self.of(image_path, prompt_id)
        if known is None:
            return None
        return tuple(false_mentions(text, known.scene, known.vocabulary))


def truth_of(config: Json) -> Truth:
    """All that a resolved recipe leads to. Files that cannot be used are told in `problems`."""
    critic = config.get("critic") or {}
    by_prompt: dict[str, Known] = {}
    problems = []
    if critic.get("facts") and critic.get("vocabulary"):
        try:
            vocabulary = read_vocabulary(Path(critic["vocabulary"]))
            for record, where in _described(Path(critic["facts"])):
                by_prompt[prompt_id(record, where)] = Known(record["objects"], vocabulary)
        except DataError as error:
            problems.append(str(error))
    return Truth(_world_scenes(config), by_prompt, problems)


def _described(facts: Path) -> Iterator[tuple[Record, str]]:
    """The records that list objects, all by name, and where they stand."""
    for entry in read_entries(facts):
        things = entry.record().get("objects")
        if isinstance(things, list) and all(_is_object(thing) for thing in things):
            yield entry.record(), entry.where


def _is_object(thing: object) -> bool:
    return (
        isinstance(thing, dict)
        and "name" in thing
        and all(isinstance(value, str) for value in thing.values())
    )


def _world_scenes(config: Json) -> dict[str, Known]:
    """The training images of the run's own embedded world; none where it has another's."""
    if not config.get("world"):
        return {}
    from csr.world.dataset import training_facts, vocabulary
    from csr.world.settings import Config, world_name

    try:
        world = Config.model_validate(config["world"])
    except ValidationError:  # of another release, whose worlds this one does not draw
        return {}
    images = Path(config["data"]["images"])
    if images.parts[-3:] != (world_name(world), "data", "images"):
        return {}
    wordings = vocabulary()
    tables = {name: SynonymTable(values) for name, values in wordings["attributes"].items()}
    words = Vocabulary(SynonymTable(wordings["objects"]), tables)
    facts = training_facts(world.num_train, world.scenes)
    root = os.path.realpath(images)
    return {os.path.join(root, name): Known(scene, words) for name, scene in facts.items()}
