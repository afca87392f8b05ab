"""A critic that knows what each image shows: for worlds whose scenes are described in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from csr.annotations import Annotation, AnnotationVerdict
from csr.config import ComponentConfig, Location
from csr.errors import DataError
from csr.protocols import Critic
from csr.records import prompt_id, read_entries
from csr.responses import spoken_responses
from csr.steps import split_steps
from csr.truthfulness import SceneObject, judge_sentence
from csr.types import ResponseTree
from csr.vocabulary import Vocabulary, read_vocabulary

NAME = "oracle"


class Config(ComponentConfig):
    """Where the truth is written down."""

    facts: Location
    """JSONL file or JSON list: records with the prompts' `id` and `objects`, a list of `{"name",
    <attribute>...}` in the vocabulary's names."""
    vocabulary: Location
    """JSON file with the wordings of objects and attributes."""


def build(config: Config) -> Critic:
    """The critic. Its files are read when it judges."""
    return OracleCritic(config)


class OracleCritic:
    """Accepts a response that names one object a sentence, all as they are. Implements `Critic`."""

    quota = None

    def __init__(self, config: Config) -> None:
        self._config = config

    def judge(self, trees: Sequence[ResponseTree], given: Sequence[Annotation]) -> list[Annotation]:
        """A verdict on every response. DataError for a prompt of which nothing is known."""
        vocabulary, scenes = read_vocabulary(Path(self._config.vocabulary)), self._scenes()
        annotations = []
        for tree in trees:
            known = tree.prompt.prompt_id
            if known not in scenes:
                raise DataError(
                    f"{self._config.facts} says nothing of the prompt {known!r}, so the critic "
                    "'oracle' cannot judge its responses. Give the facts of all prompts."
                )
            for response_id, text in spoken_responses(tree):
                true = is_true(text, scenes[known], vocabulary)
                annotations.append(
                    Annotation(
                        response_id=response_id,
                        prompt_id=known,
                        verdict=AnnotationVerdict.ACCEPT if true else AnnotationVerdict.REFUSE,
                        annotator=NAME,
                    )
                )
        return annotations

    def _scenes(self) -> Mapping[str, Sequence[SceneObject]]:
        scenes = {}
        for entry in read_entries(Path(self._config.facts)):
            record = entry.record()
            things = record.get("objects")
            if not isinstance(things, list) or not all(isinstance(t, dict) for t in things):
                raise DataError(
                    f"{entry.where}: 'objects' must list what the image shows, each as "
                    "{\"name\": ...}. The critic 'oracle' judges by it."
                )
            scenes[prompt_id(record, entry.where)] = things
        return scenes


def is_true(text: str, scene: Sequence[SceneObject], vocabulary: Vocabulary) -> bool:
    """Whether every sentence names one object of the scene, with all attributes as they are."""
    return all(
        judge_sentence(sentence, scene, vocabulary.objects, vocabulary.attributes).all_right
        for sentence in split_steps(text, "sentence")
    )
