"""Multiple-choice questions, answered by the policy's probabilities of the choices.

Nothing is parsed from text: the answer is the choice with the largest probability, as it is and
without the policy's habit (arXiv:2403.05262, post-hoc debias). The habit is a liking for a letter,
or, where the choices' own words are read, for words that are likelier anywhere.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from csr.config import ComponentConfig, Location
from csr.errors import DataError, shown
from csr.evaluation._benchmark import GreedyBenchmark
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
from csr.evaluation._records import build_prompts, num_records, read_records
from csr.label_calibration import ContentFree, surface_forms
from csr.outcomes import Outcome, outcomes_of
from csr.planning import ExpectedResponse, PlannedCall, PlannedQuestions
from csr.records import Record
from csr.types import GeneratedResponse, LabelQuery, Prompt

LETTERS = string.ascii_uppercase
_PLANNED_CHOICES = 4


class Config(ComponentConfig):
    """Where the questions are, and how they are asked."""

    prompts: Location
    """JSONL file or JSON list: records with `id`, `image`, `input`, `choices` (two to 26 texts)
    and `label`, which is one of the choices."""
    images: Location
    """Folder that the records' image paths are relative to."""
    max_prompts: int | None = Field(default=None, ge=1)
    """Questions asked at most, the first of the file; None asks all."""
    max_response_tokens: int = Field(default=16, ge=1)
    """Tokens of the greedy responses, which are stored for readers and not judged."""
    answer_by: Literal["letter", "text"] = "letter"
    """`letter`: the choices stand below the question as "A. ...", and letters are read; `text`:
    the question stands alone, and each choice's own words are read as its answer."""
    instruction: str = "Answer with the option's letter from the given choices directly."
    """Stands below the choices (LLaVA-1.5's wording). Only with `letter`."""
    calibration: Calibration = "none"
    """`content_free`: also report `multiple_choice_calibrated_*`."""
    content_free: ContentFree = "none"
    """What the policy is shown for its habit: no image, a grey one, or the mean of both."""
    calibration_scope: CalibrationScope = "question"
    """Whose content-free answer corrects a question's: its own, or the mean over all."""

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.answer_by == "text" and self.calibration_scope == "dataset":
            raise ValueError(
                "calibration_scope is dataset, but with answer_by text each question has choices "
                "of its own, so there is no mean over them. Set calibration_scope to question"
            )
        refuse_idle_calibration(self.calibration, self.content_free, self.calibration_scope)
        return self


def build(config: Config) -> MultipleChoiceBenchmark:
    """The benchmark. Files are read when its prompts are asked for."""
    return MultipleChoiceBenchmark(config)


def planned_questions(config: Config, expected: ExpectedResponse) -> PlannedQuestions:
    """Answers as long as they may be, then the labels of four choices."""
    free = config.content_free if config.calibration == "content_free" else None
    answer = PlannedCall(name="answer", generated_tokens=config.max_response_tokens)
    return PlannedQuestions(
        num_prompts=num_records(config.prompts, config.max_prompts),
        calls=(answer, *planned_label_calls(_PLANNED_CHOICES, free)),
    )


@dataclass
class MultipleChoiceBenchmark(GreedyBenchmark):
    """Asks the questions and compares the likeliest choice with the right one."""

    config: Config

    def label_queries(self) -> Sequence[LabelQuery]:
        """The choices of each question, with its image, and with `calibration` content-free."""
        asked = self.config.content_free if self.config.calibration == "content_free" else None
        forms = [
            tuple(self._forms(place, choice) for place, choice in enumerate(record["choices"]))
            for record in self._records
        ]
        return label_queries(self.prompts(), forms, asked)

    def evaluate(
        self,
        responses: Sequence[GeneratedResponse],
        label_logprobs: Sequence[tuple[float, ...]] = (),
    ) -> dict[str, float]:
        """`multiple_choice_accuracy` and, with `calibration`, `..._calibrated_accuracy`.

        `..._label_mass` is the mean probability that a response begins with any choice;
        `..._top_place_share` how often the place is answered that is answered most.
        """
        num = len(self._records)
        readings = read_labels(label_logprobs, num, self.config.calibration_scope)
        metrics: dict[str, float] = {}
        for prefix, answers in self._answers(readings).items():
            metrics |= self._figures(answers, prefix)
        metrics["multiple_choice_label_mass"] = mean_mass(readings)
        metrics["multiple_choice_num_prompts"] = float(num)
        return metrics

    def outcomes(
        self,
        responses: Sequence[GeneratedResponse],
        label_logprobs: Sequence[tuple[float, ...]] = (),
    ) -> Sequence[Outcome]:
        """Whether each question is answered rightly."""
        scope = self.config.calibration_scope
        found: list[Outcome] = []
        readings = read_labels(label_logprobs, len(self._records), scope)
        for prefix, answers in self._answers(readings).items():
            for record, answer in zip(self._records, answers, strict=True):
                right = record["choices"][answer] == record["label"]
                ratio = (f"multiple_choice_{prefix}accuracy", right, 1)
                found += outcomes_of(record["id"], record["image"], [ratio])
        return found

    def _answers(self, readings: Sequence[LabelReading]) -> dict[str, list[int]]:
        """The places that are answered; before their figures' names stands the key."""
        answers = {"": [likeliest(reading.plain) for reading in readings]}
        if self.config.calibration == "content_free":
            answers["calibrated_"] = [likeliest(reading.calibrated) for reading in readings]
        return answers

    def _figures(self, answers: Sequence[int], prefix: str = "") -> dict[str, float]:
        right = [r["choices"].index(r["label"]) for r in self._records]
        accuracy = sum(a == b for a, b in zip(answers, right, strict=True)) / len(right)
        [(_, most)] = Counter(answers).most_common(1)
        figures = {
            "accuracy": accuracy,
            "top_place_share": most / len(answers),
        }
        return {f"multiple_choice_{prefix}{name}": value for name, value in figures.items()}

    def _question(self, record: Record) -> str:
        if self.config.answer_by == "text":
            return str(record["input"])
        choices = zip(LETTERS, record["choices"], strict=False)
        lines = [f"{letter}. {choice}" for letter, choice in choices]
        return "\n".join([record["input"], *lines, self.config.instruction])

    def _forms(self, place: int, choice: str) -> tuple[str, ...]:
        """Of a letter in upper case alone: " a" is the article."""
        if self.config.answer_by == "text":
            return surface_forms(choice)
        return tuple(before + LETTERS[place] for before in (" ", "", " (", "("))

    @cached_property
    def _prompts(self) -> list[Prompt]:
        records = [{**r, "input": self._question(r)} for r in self._records]
        return build_prompts(records, Path(self.config.images), "multiple_choice")

    @cached_property
    def _records(self) -> list[Record]:
        check = _check_texts if self.config.answer_by == "text" else _check_record
        return read_records(Path(self.config.prompts), check)[: self.config.max_prompts]


def _check_record(record: Record, where: str) -> None:
    choices = record.get("choices")
    if not isinstance(choices, list) or not _are_choices(choices):
        raise DataError(
            f"{where} ({shown(record['id'])}): 'choices' is {shown(choices)}, but must be a list "
            f"of 2 to {len(LETTERS)} different texts, none of them blank."
        )
    if record.get("label") not in choices:
        raise DataError(
            f"{where} ({shown(record['id'])}): 'label' is {shown(record.get('label'))}, but must "
            f"be one of the choices, written alike: {', '.join(map(shown, choices))}."
        )


def _are_choices(values: list[object]) -> bool:
    texts = all(isinstance(value, str) and value.strip() for value in values)
    return texts and 2 <= len(values) == len(set(values)) <= len(LETTERS)


def _check_texts(record: Record, where: str) -> None:
    """A response that begins with the longer of two such choices would count for both."""
    _check_record(record, where)
    for one in record["choices"]:
        for other in record["choices"]:
            if one is not other and other.casefold().startswith(one.casefold()):
                raise DataError(
                    f"{where} ({shown(record['id'])}): the choice {shown(other)} begins with the "
                    f"choice {shown(one)}, so their probabilities overlap. Word them otherwise, "
                    "or set answer_by to letter."
                )
