"""POPE: yes-or-no questions about whether an object is in the image.

Li et al. 2023, "Evaluating Object Hallucination in Large Vision-Language Models". The
absent objects asked about are drawn at random, by frequency ("popular"), or by how
often they accompany an object that is present ("adversarial").

With `calibration: content_free` the same questions are also answered by the probabilities of "yes"
and "no", as they are and without the policy's habit (arXiv:2403.05262, post-hoc debias).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from csr.config import ComponentConfig, Location
from csr.errors import DataError, shown
from csr.evaluation._labels import (
    Calibration,
    CalibrationScope,
    label_queries,
    likeliest,
    mean_mass,
    planned_label_calls,
    read_labels,
)
from csr.evaluation._records import build_prompts, num_records, read_records
from csr.evaluation._uncertainty import binomial_se
from csr.label_calibration import ContentFree, surface_forms
from csr.planning import ExpectedResponse, PlannedCall, PlannedQuestions, text_tokens
from csr.records import Record
from csr.types import GeneratedResponse, LabelQuery, Prompt

Answer = Literal["yes", "no"]
AnswerRule = Literal["official", "robust"]

SPLITS = ("random", "popular", "adversarial")
LABELS: tuple[Answer, ...] = ("yes", "no")
_NEGATIVE_WORDS = frozenset({"no", "not", "none", "cannot", "never", "without"})


class Config(ComponentConfig):
    """Where the questions are, and how answers are read."""

    prompts: Location
    """JSONL file or JSON list: records with `id`, `image`, `input`, `label` ("yes" or "no")
    and `split` ("random", "popular" or "adversarial")."""
    images: Location
    """Folder that the records' image paths are relative to."""
    max_prompts: int | None = Field(default=None, ge=1)
    """Questions asked at most, spread evenly over splits and labels; None asks all."""
    max_response_tokens: int = Field(default=32, ge=1)
    """Tokens. Answers are judged by their first sentence."""
    answer_rule: AnswerRule = "official"
    """`official`: the authors' rule, comparable with published figures; `robust`: the first
    yes or no word decides, and an answer without one is wrong."""
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
    return PlannedQuestions(
        num_prompts=num_records(config.prompts, config.max_prompts), calls=calls
    )


def official_answer(text: str) -> Answer:
    """The authors' rule: "no" where the first sentence holds No, no or not, else "yes".

    It knows no other spelling ("NO", "isn't") and takes silence for "yes".
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def robust_answer(text: str) -> Answer | None:
    """The first yes or no word of the text in any case; else "no" where it negates.

    None where the text does neither, e.g. "A dog." or nothing at all.
    """
    words = re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower().replace("\u2019", "'"))
    for word in words:
        if word == "yes":
            return "yes"
        if word == "no":
            return "no"
    negates = any(word in _NEGATIVE_WORDS or word.endswith("n't") for word in words)
    return "no" if negates else None


def split_metrics(labels: Sequence[Answer], answers: Sequence[Answer | None]) -> dict[str, float]:
    """Figures of one split as fractions; "yes" is the positive class.

    An answer of None counts as wrong and not as a yes. `yes_ratio` is over answers,
    not labels. A ratio with nothing to count is 0.0.
    """
    assert len(labels) == len(answers) > 0, "one answer a label"
    pairs = list(zip(labels, answers, strict=True))
    true_yes = sum(label == answer == "yes" for label, answer in pairs)
    said_yes = sum(answer == "yes" for answer in answers)
    was_yes = sum(label == "yes" for label in labels)
    return {
        "accuracy": sum(label == answer for label, answer in pairs) / len(pairs),
        "precision": true_yes / said_yes if said_yes else 0.0,
        "recall": true_yes / was_yes if was_yes else 0.0,
        "f1": 2 * true_yes / (said_yes + was_yes) if said_yes + was_yes else 0.0,
        "yes_ratio": said_yes / len(answers),
    }


def pope_metrics(
    splits: Sequence[str],
    labels: Sequence[Answer],
    answers: Sequence[Answer | None],
    prefix: str = "pope",
) -> dict[str, float]:
    """`pope_<split>_<figure>` of every split that occurs, and `pope_<figure>`, their mean.

    `pope_accuracy_se` is the standard error of the mean accuracy.
    """
    metrics: dict[str, float] = {}
    figures_of: list[dict[str, float]] = []
    variance = 0.0
    for split in (name for name in SPLITS if name in splits):
        rows = [i for i, name in enumerate(splits) if name == split]
        figures = split_metrics([labels[i] for i in rows], [answers[i] for i in rows])
        metrics |= {f"{prefix}_{split}_{name}": value for name, value in figures.items()}
        figures_of.append(figures)
        variance += binomial_se(figures["accuracy"], len(rows)) ** 2
    for name in figures_of[0]:
        metrics[f"{prefix}_{name}"] = sum(f[name] for f in figures_of) / len(figures_of)
    metrics[f"{prefix}_accuracy_se"] = math.sqrt(variance) / len(figures_of)
    return metrics


def spread(records: Sequence[Record], limit: int | None) -> list[Record]:
    """At most `limit` records, taken in turn from every (split, label), in file order."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, record in enumerate(records):
        groups.setdefault((record["split"], record["label"]), []).append(index)
    in_turn = [i for i in chain(*zip_longest(*groups.values())) if i is not None]
    return [records[i] for i in sorted(in_turn[:limit])]


@dataclass
class PopeBenchmark:
    """Asks the questions and scores the answers."""

    config: Config
    _prompts: list[Prompt] = field(default_factory=list, init=False)

    @property
    def max_response_tokens(self) -> int:
        """Tokens that an answer may have."""
        return self.config.max_response_tokens

    @property
    def describe_first(self) -> str | None:
        """As configured."""
        return self.config.describe_first

    def prompts(self) -> Sequence[Prompt]:
        """The questions, in file order."""
        if not self._prompts:
            self._prompts = build_prompts(self._records, Path(self.config.images), "pope")
        return self._prompts

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
        official: list[Answer | None] = [official_answer(response.text) for response in responses]
        robust = [robust_answer(response.text) for response in responses]
        metrics = self._figures(official if self.config.answer_rule == "official" else robust)
        differing = sum(a != b for a, b in zip(official, robust, strict=True))
        metrics["pope_rule_disagreement"] = differing / len(responses)
        metrics["pope_num_prompts"] = float(len(responses))
        return metrics | self._label_figures(label_logprobs)

    def _label_figures(self, label_logprobs: Sequence[tuple[float, ...]]) -> dict[str, float]:
        if self.config.calibration == "none":
            return {}
        readings = read_labels(label_logprobs, len(self._records), self.config.calibration_scope)
        plain = [LABELS[likeliest(reading.plain)] for reading in readings]
        debiased = [LABELS[likeliest(reading.calibrated)] for reading in readings]
        return {
            **self._figures(plain, "pope_label"),
            **self._figures(debiased, "pope_calibrated"),
            "pope_label_mass": mean_mass(readings),
        }

    def _figures(self, answers: Sequence[Answer | None], prefix: str = "pope") -> dict[str, float]:
        return pope_metrics(
            [record["split"] for record in self._records],
            [record["label"] for record in self._records],
            answers,
            prefix,
        )

    @cached_property
    def _records(self) -> list[Record]:
        path = Path(self.config.prompts)
        return spread(read_records(path, _check_record), self.config.max_prompts)


def _check_record(record: Record, where: str) -> None:
    for key, allowed in (("label", LABELS), ("split", SPLITS)):
        if record.get(key) not in allowed:
            raise DataError(
                f"{where} ({shown(record['id'])}): {key!r} is {shown(record.get(key))}, but "
                f"must be one of {', '.join(allowed)}."
            )
