"""What images show, as far as a run's recipe leads to it: for people who look, never for training.

Benchmarks and critics name files with the objects of their images and a vocabulary of wordings.
The embedded world's training images are known from the settings that drew them.
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

    def num_absent(self, text: str) -> int:
        """How often the text names an object that the image does not show."""
        present = {thing["name"] for thing in self.scene}
        return sum(name not in present for name in self.vocabulary.objects.find(text))


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of the images that a run has to do with."""

    by_image: Mapping[str, Known] = field(default_factory=dict)
    """Absolute path of an image -> what it shows."""
    by_prompt: Mapping[str, Known] = field(default_factory=dict)
    """Prompt id -> what its image shows, where facts are given without images."""
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
    by_image: dict[str, Known] = _world_scenes(config)
    by_prompt: dict[str, Known] = {}
    problems = []
    for settings in _with_vocabulary(config):
        try:
            vocabulary = read_vocabulary(Path(settings["vocabulary"]))
            for record, where in _described(settings):
                known = Known(record["objects"], vocabulary)
                if isinstance(record.get("image"), str) and settings.get("images"):
                    root = os.path.realpath(settings["images"])
                    by_image[os.path.normpath(os.path.join(root, record["image"]))] = known
                else:
                    by_prompt[prompt_id(record, where)] = known
        except DataError as error:
            problems.append(str(error))
    return Truth(by_image, by_prompt, problems)


def _with_vocabulary(config: Json) -> Iterator[Json]:
    """The settings of the components that go by the objects of their images."""
    for settings in [*config.get("evaluation", ()), config.get("critic")]:
        if settings and settings.get("vocabulary"):
            yield settings


def _described(settings: Json) -> Iterator[tuple[Record, str]]:
    """The records that list objects, all by name, and where they stand."""
    path = settings.get("facts") or settings.get("prompts")
    for entry in read_entries(Path(path)) if path else ():
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
