"""POPE: yes-or-no questions about whether an object is in the image.

Li et al. 2023, "Evaluating Object Hallucination in Large Vision-Language Models". The
absent objects asked about are drawn at random, by frequency ("popular"), or by how
often they accompany an object that is present ("adversarial").

With `calibration: content_free` the same questions are also answered by the probabilities of "yes"
and "no", as they are and without the policy's habit (arXiv:2403.05262, post-hoc debias).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path

from pydantic import Field, model_validator

from csr.config import ComponentConfig, Location
from csr.evaluation._answers import (
    LABELS,
    Answer,
    AnswerRule,
    official_answer,
    read_answer,
    robust_answer,
)
from csr.evaluation._benchmark import SelectiveBenchmark
from csr.evaluation._image_ids import keep_listed
from csr.evaluation._labels import (
    Calibration,
    CalibrationScope,
    LabelReading,
    label_queries,
    likeliest,
    mean_mass,
    planned_label_calls,
    read_labels,
    refuse_idle_calibration,
)
from csr.evaluation._pope_figures import answer_outcomes, pope_metrics
from csr.evaluation._pope_files import PopeFiles, read_pope
from csr.evaluation._records import build_prompts, count_prompts
from csr.label_calibration import ContentFree, surface_forms
from csr.outcomes import Outcome
from csr.planning import ExpectedResponse, PlannedCall, PlannedQuestions, text_tokens
from csr.records import Record
from csr.types import GeneratedResponse, LabelQuery, Prompt


class Config(ComponentConfig):
    """Where the questions are, and how answers are read."""

    prompts: Location
    """The authors' folder with `coco_pope_random.json`, `..._popular.json` and
    `..._adversarial.json`, or one of these files; or a JSONL file or JSON list of records with
    `id`, `image`, `input`, `label` ("yes" or "no") and `split`, one of these three names."""
    images: Location
    """Folder that the records' image paths are relative to."""
    image_ids: Location | None = None
    """File with the images to ask about, a JSON list or one a line; None takes all."""
    max_prompts: int | None = Field(default=None, ge=1)
    """Questions asked at most, spread evenly over splits and labels; None asks all."""
    max_response_tokens: int = Field(default=32, ge=1)
    """Tokens. Answers are judged by their first sentence."""
    answer_rule: AnswerRule = "official"
    """`official`: the authors' rule, comparable with published figures; `robust`: the first
    yes or no word decides, and an answer without one is wrong; `substring`: as VCD's code
    (arXiv:2311.16922), right where the answer holds the label's letters."""
    describe_first: str | None = None
    """Describe-and-respond (STIC, arXiv:2405.19716, section 4.2): asks for a description first, and
    puts it before each question. None asks the questions alone."""
    calibration: Calibration = "none"
    """`content_free`: also report `pope_label_*`, the likelier of "yes" and "no" by the policy's
    probabilities, and `pope_calibrated_*`, the same divided by a content-free input's."""
    content_free: ContentFree = "none"
    """What the policy is shown for its habit: the question without image, with a grey one, or
    the mean of both (arXiv:2403.05262's code: `none`, `unk`, `none_unk`)."""
    calibration_scope: CalibrationScope = "question"
    """Whose content-free answer corrects a question's: its own, or the mean over all of them."""

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.describe_first is not None and self.calibration != "none":
            raise ValueError(
                "describe_first cannot go with calibration: without the image there is nothing to "
                "describe. Leave one of the two out."
            )
        refuse_idle_calibration(self.calibration, self.content_free, self.calibration_scope)
        return self


def build(config: Config) -> PopeBenchmark:
    """The benchmark. Files are read when its prompts are asked for."""
    return PopeBenchmark(config)


def planned_questions(config: Config, expected: ExpectedResponse) -> PlannedQuestions:
    """Answers as long as they may be; before them a description, or after them the labels."""
    answer = PlannedCall(name="answer", generated_tokens=config.max_response_tokens)
    calls: tuple[PlannedCall, ...] = (answer,)
    if config.describe_first is not None:
        question, length = text_tokens(config.describe_first), expected.num_tokens
        calls = (
            PlannedCall(name="description", question_tokens=question, generated_tokens=length),
            replace(answer, question_tokens=question + length, shared="image"),
        )
    if config.calibration != "none":
        calls += planned_label_calls(len(LABELS), config.content_free)
    return PlannedQuestions(num_prompts=count_prompts(build(config).prompt_ids), calls=calls)


def spread(records: Sequence[Record], limit: int | None) -> list[Record]:
    """At most `limit` records, taken in turn from every (split, label), in file order."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, record in enumerate(records):
        groups.setdefault((record["split"], record["label"]), []).append(index)
    in_turn = [i for i in chain(*zip_longest(*groups.values())) if i is not None]
    return [records[i] for i in sorted(in_turn[:limit])]


@dataclass
class PopeBenchmark(SelectiveBenchmark):
    """Asks the questions and scores the answers."""

    config: Config
    response_fields: tuple[str, str] = field(default=("question_id", "answer"), init=False)
    """Of a record in a file of answers; the id is the question's, "<split>-<question_id>"."""

    @property
    def describe_first(self) -> str | None:
        """As configured."""
        return self.config.describe_first

    def prompt_ids(self) -> Sequence[str]:
        """The questions' ids; no image is looked at."""
        return [record["id"] for record in self._records]

    def response_records(self, responses: Sequence[GeneratedResponse]) -> list[Record]:
        """The answers, a record each."""
        return [{"question_id": r.prompt_id, "answer": r.text} for r in responses]

    def label_queries(self) -> Sequence[LabelQuery]:
        """With `calibration`: "yes" and "no" of each question, with its image and without."""
        if self.config.calibration == "none":
            return ()
        forms = [tuple(surface_forms(label) for label in LABELS)] * len(self.prompts())
        return label_queries(self.prompts(), forms, self.config.content_free)

    def evaluate(
        self,
        responses: Sequence[GeneratedResponse],
        label_logprobs: Sequence[tuple[float, ...]] = (),
    ) -> dict[str, float]:
        """Accuracy, precision, recall, F1 and yes-ratio of each split and their means.

        `pope_rule_disagreement` is the share of responses that the two answer rules read
        differently: where it is not small, look at the responses.
        """
        ids = [record["id"] for record in self._records]
        assert [response.prompt_id for response in responses] == ids, "one response a prompt"
        official = [official_answer(response.text) for response in responses]
        robust = [robust_answer(response.text) for response in responses]
        metrics = self._figures(self._answers(responses))
        differing = sum(a != b for a, b in zip(official, robust, strict=True))
        metrics["pope_rule_disagreement"] = differing / len(responses)
        metrics["pope_num_prompts"] = float(len(responses))
        return metrics | self._files.facts | self._label_figures(label_logprobs)

    def outcomes(
        self,
        responses: Sequence[GeneratedResponse],
        label_logprobs: Sequence[tuple[float, ...]] = (),
    ) -> Sequence[Outcome]:
        """Each answer's part in every figure of its split, and in the means over the splits."""
        answers = {"pope": self._answers(responses), **self._label_answers(label_logprobs)}
        return [
            outcome
            for prefix, given in answers.items()
            for record, answer in zip(self._records, given, strict=True)
            for outcome in answer_outcomes(record, answer, prefix)
        ]

    def _answers(self, responses: Sequence[GeneratedResponse]) -> list[Answer | None]:
        rows = zip(self._records, responses, strict=True)
        return [read_answer(self.config.answer_rule, r.text, record["label"]) for record, r in rows]

    def _label_figures(self, label_logprobs: Sequence[tuple[float, ...]]) -> dict[str, float]:
        if self.config.calibration == "none" or not label_logprobs:
            return {}
        metrics: dict[str, float] = {}
        for prefix, answers in self._label_answers(label_logprobs).items():
            metrics |= self._figures(answers, prefix)
        return {**metrics, "pope_label_mass": mean_mass(self._readings(label_logprobs))}

    def _label_answers(
        self, label_logprobs: Sequence[tuple[float, ...]]
    ) -> dict[str, list[Answer | None]]:
        """None where nobody asked for probabilities, as of answers that come from a file."""
        if self.config.calibration == "none" or not label_logprobs:
            return {}
        readings = self._readings(label_logprobs)
        return {
            "pope_label": [LABELS[likeliest(reading.plain)] for reading in readings],
            "pope_calibrated": [LABELS[likeliest(reading.calibrated)] for reading in readings],
        }

    def _readings(self, label_logprobs: Sequence[tuple[float, ...]]) -> list[LabelReading]:
        return read_labels(label_logprobs, len(self._records), self.config.calibration_scope)

    def _figures(self, answers: Sequence[Answer | None], prefix: str = "pope") -> dict[str, float]:
        return pope_metrics(
            [record["split"] for record in self._records],
            [record["label"] for record in self._records],
            answers,
            prefix,
        )

    @cached_property
    def _records(self) -> list[Record]:
        listed = self.config.image_ids
        chosen = keep_listed(
            self._files.records, lambda record: record["image"], Path(listed) if listed else None
        )
        records = spread(chosen, self.config.max_prompts)
        return [r for r in records if self._kept is None or r["id"] in self._kept]

    @cached_property
    def _prompts(self) -> list[Prompt]:
        return build_prompts(self._records, Path(self.config.images), "pope")

    @cached_property
    def _files(self) -> PopeFiles:
        return read_pope(Path(self.config.prompts))
