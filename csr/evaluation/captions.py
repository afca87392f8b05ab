"""Captions of held-out images: CHAIR, attributes, lengths and diversity from one response.

The same greedy captions serve all of these, so they are sampled once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydantic import Field

from csr.config import ComponentConfig, Location
from csr.errors import DataError, shown
from csr.evaluation._attributes import attribute_metrics, attribute_ratios
from csr.evaluation._benchmark import SelectiveBenchmark
from csr.evaluation._captions import (
    caption_figures,
    knows_tokens,
    length_ratios,
    scored_sentences,
)
from csr.evaluation._chair import CaptionObjects, chair_metrics, chair_outcomes, count_objects
from csr.evaluation._image_ids import keep_listed
from csr.evaluation._records import build_prompts, count_prompts, num_records, read_records
from csr.outcomes import Outcome, outcomes_of
from csr.planning import ExpectedResponse, PlannedCall, PlannedQuestions
from csr.records import Record
from csr.truthfulness import (
    FalseMention,
    SceneObject,
    SentenceVerdict,
    false_mentions,
    judge_sentence,
)
from csr.types import GeneratedResponse, Prompt
from csr.vocabulary import Vocabulary, read_vocabulary

FIGURES = "chair"
"""No other benchmark of the same figures may stand beside it in a recipe."""


class Config(ComponentConfig):
    """Where the images and their ground truth are, and how captions are counted."""

    prompts: Location
    """JSONL file or JSON list: records with `id`, `image`, `input`, and, where there is a
    vocabulary, `objects`: a list of `{"name", <attribute>...}` in the vocabulary's names."""
    images: Location
    """Folder that the records' image paths are relative to."""
    vocabulary: Location | None = None
    """JSON file with the wordings of objects and attributes. None means no ground truth:
    lengths and diversity alone are measured."""
    image_ids: Location | None = None
    """File with the images to caption, a JSON list or one a line; None takes all."""
    max_prompts: int | None = Field(default=None, ge=1)
    """Images captioned at most, the first of the file; None takes all."""
    max_response_tokens: int = Field(default=512, ge=1)
    """Tokens. CHAIR depends on it: longer captions hallucinate more."""
    unique_numerator: bool = False
    """Count each hallucinated object once a caption in CHAIR_i's numerator, as some later
    codebases do; Rohrbach et al. 2018 count every mention."""
    drop_unfinished_sentence: bool = True
    """Leave out the last sentence of a caption that the token limit cut: its object may be
    cut in half."""


def build(config: Config) -> CaptionBenchmark:
    """The benchmark. Files are read when its prompts are asked for."""
    return CaptionBenchmark(config)


def planned_questions(config: Config, expected: ExpectedResponse) -> PlannedQuestions:
    """A caption of each image, as long as a response."""
    length = expected.cut(config.max_response_tokens)
    listed = config.image_ids is not None
    return PlannedQuestions(
        num_prompts=count_prompts(build(config).prompt_ids)
        if listed
        else num_records(config.prompts, config.max_prompts),
        calls=(PlannedCall(name="caption", generated_tokens=length),),
    )


@dataclass
class CaptionBenchmark(SelectiveBenchmark):
    """Asks for captions and scores them."""

    config: Config
    response_fields: tuple[str, str] = field(default=("id", "caption"), init=False)
    """Of a record in a file of captions."""

    def prompt_ids(self) -> Sequence[str]:
        """The records' ids; no image is looked at."""
        return [record["id"] for record in self._records]

    def response_records(self, responses: Sequence[GeneratedResponse]) -> list[Record]:
        """The captions, a record each."""
        return [{"id": r.prompt_id, "caption": r.text} for r in responses]

    def false_mentions(
        self, responses: Sequence[GeneratedResponse]
    ) -> Sequence[list[FalseMention] | None]:
        """Absent objects and wrong attributes of the whole captions; None without vocabulary."""
        vocabulary = self._vocabulary
        if vocabulary is None:
            return [None] * len(responses)
        return [
            false_mentions(response.text, record["objects"], vocabulary)
            for response, record in zip(responses, self._records, strict=True)
        ]

    def evaluate(
        self,
        responses: Sequence[GeneratedResponse],
        label_logprobs: Sequence[tuple[float, ...]] = (),
    ) -> dict[str, float]:
        """CHAIR, recall and attributes where there is ground truth; lengths always.

        `mean_response_sentences` counts the sentences that are scored. Keys: see
        `caption_figures`, `chair_metrics`, `attribute_metrics`, `diversity_metrics`.
        """
        captions = self._sentences(responses)
        metrics = caption_figures(responses, captions)
        if self._vocabulary is not None:
            scenes = [record["objects"] for record in self._records]
            metrics |= scene_metrics(
                captions, scenes, self._vocabulary, self.config.unique_numerator
            )
        return metrics

    def outcomes(
        self,
        responses: Sequence[GeneratedResponse],
        label_logprobs: Sequence[tuple[float, ...]] = (),
    ) -> Sequence[Outcome]:
        """Each caption's part in CHAIR, recall, the accuracies and the mean lengths."""
        found: list[Outcome] = []
        with_tokens = knows_tokens(responses)
        rows = zip(self._records, responses, self._sentences(responses), strict=True)
        for record, response, sentences in rows:
            lengths = length_ratios(response, sentences, with_tokens=with_tokens)
            name, image = record["id"], record["image"]
            found += outcomes_of(name, image, lengths)
            if self._vocabulary is not None:
                scene, unique = record["objects"], self.config.unique_numerator
                counts = _counts(sentences, scene, self._vocabulary, unique)
                verdicts = _verdicts(sentences, scene, self._vocabulary)
                accuracies = attribute_ratios(verdicts, list(self._vocabulary.attributes))
                found += chair_outcomes(name, image, counts)
                found += outcomes_of(name, image, accuracies if self._vocabulary.attributes else ())
        return found

    def _sentences(self, responses: Sequence[GeneratedResponse]) -> list[list[str]]:
        """The sentences that are scored, of one response for each record in order."""
        ids = [record["id"] for record in self._records]
        assert [response.prompt_id for response in responses] == ids, "one response a prompt"
        drop = self.config.drop_unfinished_sentence
        return [scored_sentences(response, drop_unfinished=drop) for response in responses]

    @cached_property
    def _vocabulary(self) -> Vocabulary | None:
        if self.config.vocabulary is None:
            return None
        return read_vocabulary(Path(self.config.vocabulary))

    @cached_property
    def _prompts(self) -> list[Prompt]:
        return build_prompts(self._records, Path(self.config.images), "captions")

    @cached_property
    def _records(self) -> list[Record]:
        path = Path(self.config.prompts)
        listed = Path(self.config.image_ids) if self.config.image_ids else None
        chosen = keep_listed(read_records(path), lambda record: record["image"], listed)
        records = [
            record
            for record in chosen[: self.config.max_prompts]
            if self._kept is None or record["id"] in self._kept
        ]
        if self._vocabulary is not None:
            for record in records:
                _check_objects(record, self._vocabulary, path)
        return records


def scene_metrics(
    captions: Sequence[Sequence[str]],
    scenes: Sequence[Sequence[SceneObject]],
    vocabulary: Vocabulary,
    unique_numerator: bool,
) -> dict[str, float]:
    """CHAIR and attribute figures of captions, given as sentences, against their images."""
    rows = list(zip(captions, scenes, strict=True))
    metrics = chair_metrics([_counts(*row, vocabulary, unique_numerator) for row in rows])
    if not vocabulary.attributes:
        return metrics
    verdicts = [_verdicts(*row, vocabulary) for row in rows]
    return metrics | attribute_metrics(verdicts, list(vocabulary.attributes))


def _counts(
    sentences: Sequence[str],
    scene: Sequence[SceneObject],
    vocabulary: Vocabulary,
    unique_numerator: bool,
) -> CaptionObjects:
    return count_objects(
        " ".join(sentences),
        {thing["name"] for thing in scene},
        vocabulary.objects,
        unique_numerator=unique_numerator,
    )


def _verdicts(
    sentences: Sequence[str], scene: Sequence[SceneObject], vocabulary: Vocabulary
) -> list[SentenceVerdict]:
    return [
        judge_sentence(sentence, scene, vocabulary.objects, vocabulary.attributes)
        for sentence in sentences
    ]


def _check_objects(record: Record, vocabulary: Vocabulary, path: Path) -> None:
    where = f"{path}, record {shown(record['id'])}"
    things = record.get("objects")
    if not isinstance(things, list) or not all(isinstance(thing, dict) for thing in things):
        raise DataError(
            f"{where}: with a vocabulary, 'objects' must list what the image shows, each as "
            '{"name": ...}. Add it, or leave out `vocabulary` to measure without ground truth.'
        )
    for thing in things:
        for key, table in {"name": vocabulary.objects, **vocabulary.attributes}.items():
            value = thing.get(key)
            if not isinstance(value, str) or value not in table.names:
                raise DataError(
                    f"{where}: {key!r} is {shown(value)}, which the vocabulary does not know. "
                    f"Known: {', '.join(sorted(table.names))}."
                )
