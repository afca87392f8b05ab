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
from csr.evaluation._attributes import attribute_metrics
from csr.evaluation._chair import chair_metrics, count_objects
from csr.evaluation._diversity import diversity_metrics
from csr.evaluation._records import build_prompts, num_records, read_records
from csr.planning import ExpectedResponse, PlannedCall, PlannedQuestions
from csr.records import Record
from csr.steps import split_steps, step_end
from csr.truthfulness import SceneObject, judge_sentence
from csr.types import FinishReason, GeneratedResponse, LabelQuery, Prompt
from csr.vocabulary import Vocabulary, read_vocabulary


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
    return PlannedQuestions(
        num_prompts=num_records(config.prompts, config.max_prompts),
        calls=(PlannedCall(name="caption", generated_tokens=length),),
    )


@dataclass
class CaptionBenchmark:
    """Asks for captions and scores them."""

    config: Config
    _prompts: list[Prompt] = field(default_factory=list, init=False)

    @property
    def max_response_tokens(self) -> int:
        """Tokens that a caption may have."""
        return self.config.max_response_tokens

    @property
    def describe_first(self) -> str | None:
        """Captions are descriptions themselves."""
        return None

    def prompts(self) -> Sequence[Prompt]:
        """What is asked, in file order."""
        if not self._prompts:
            self._prompts = build_prompts(self._records, Path(self.config.images), "captions")
        return self._prompts

    def label_queries(self) -> Sequence[LabelQuery]:
        """None: captions have no labels."""
        return ()

    def evaluate(
        self,
        responses: Sequence[GeneratedResponse],
        label_logprobs: Sequence[tuple[float, ...]] = (),
    ) -> dict[str, float]:
        """CHAIR, recall and attributes where there is ground truth; lengths always.

        `mean_response_tokens` counts whole responses with their end token;
        `mean_response_sentences` counts the sentences that are scored. Keys: see
        `chair_metrics`, `attribute_metrics`, `diversity_metrics`.
        """
        ids = [record["id"] for record in self._records]
        assert [response.prompt_id for response in responses] == ids, "one response a prompt"
        drop = self.config.drop_unfinished_sentence
        captions = [scored_sentences(response, drop_unfinished=drop) for response in responses]
        truncated = sum(r.finish_reason is FinishReason.LENGTH for r in responses)
        metrics = diversity_metrics(captions)
        metrics["mean_response_tokens"] = sum(len(r.token_ids) for r in responses) / len(responses)
        metrics["truncated_share"] = truncated / len(responses)
        metrics["num_captions"] = float(len(responses))
        if self._vocabulary is not None:
            scenes = [record["objects"] for record in self._records]
            metrics |= scene_metrics(
                captions, scenes, self._vocabulary, self.config.unique_numerator
            )
        return metrics

    @cached_property
    def _vocabulary(self) -> Vocabulary | None:
        if self.config.vocabulary is None:
            return None
        return read_vocabulary(Path(self.config.vocabulary))

    @cached_property
    def _records(self) -> list[Record]:
        path = Path(self.config.prompts)
        records = read_records(path)[: self.config.max_prompts]
        if self._vocabulary is not None:
            for record in records:
                _check_objects(record, self._vocabulary, path)
        return records


def scored_sentences(response: GeneratedResponse, *, drop_unfinished: bool) -> list[str]:
    """A response's sentences, without the last where the token limit cut it short.

    What holds no letter or digit is not a sentence.
    """
    sentences = split_steps(response.text, "sentence")
    if drop_unfinished and sentences and response.finish_reason is FinishReason.LENGTH:
        *before, last = sentences
        if step_end(last, "sentence", "".join(before)) is None:
            sentences = before
    return [sentence for sentence in sentences if any(map(str.isalnum, sentence))]


def scene_metrics(
    captions: Sequence[Sequence[str]],
    scenes: Sequence[Sequence[SceneObject]],
    vocabulary: Vocabulary,
    unique_numerator: bool,
) -> dict[str, float]:
    """CHAIR and attribute figures of captions, given as sentences, against their images."""
    counts = [
        count_objects(
            " ".join(sentences),
            {thing["name"] for thing in scene},
            vocabulary.objects,
            unique_numerator=unique_numerator,
        )
        for sentences, scene in zip(captions, scenes, strict=True)
    ]
    metrics = chair_metrics(counts)
    if not vocabulary.attributes:
        return metrics
    verdicts = [
        [judge_sentence(s, scene, vocabulary.objects, vocabulary.attributes) for s in sentences]
        for sentences, scene in zip(captions, scenes, strict=True)
    ]
    return metrics | attribute_metrics(verdicts, list(vocabulary.attributes))


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
