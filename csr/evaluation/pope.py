"""POPE: yes-or-no questions about whether an object is in the image.

Li et al. 2023, "Evaluating Object Hallucination in Large Vision-Language Models". The
absent objects asked about are drawn at random, by frequency ("popular"), or by how
often they accompany an object that is present ("adversarial").
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path
from typing import Literal

from pydantic import Field

from csr.config import ComponentConfig, Location
from csr.errors import DataError, shown
from csr.evaluation._records import build_prompts, read_records
from csr.evaluation._uncertainty import binomial_se
from csr.records import Record
from csr.types import GeneratedResponse, Prompt

Answer = Literal["yes", "no"]
AnswerRule = Literal["official", "robust"]

SPLITS = ("random", "popular", "adversarial")
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


def build(config: Config) -> PopeBenchmark:
    """The benchmark. Files are read when its prompts are asked for."""
    return PopeBenchmark(config)


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
    splits: Sequence[str], labels: Sequence[Answer], answers: Sequence[Answer | None]
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
        metrics |= {f"pope_{split}_{name}": value for name, value in figures.items()}
        figures_of.append(figures)
        variance += binomial_se(figures["accuracy"], len(rows)) ** 2
    for name in figures_of[0]:
        metrics[f"pope_{name}"] = sum(f[name] for f in figures_of) / len(figures_of)
    metrics["pope_accuracy_se"] = math.sqrt(variance) / len(figures_of)
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

    def prompts(self) -> Sequence[Prompt]:
        """The questions, in file order."""
        if not self._prompts:
            self._prompts = build_prompts(self._records, Path(self.config.images), "pope")
        return self._prompts

    def evaluate(self, responses: Sequence[GeneratedResponse]) -> dict[str, float]:
        """Accuracy, precision, recall, F1 and yes-ratio of each split and their means.

        `pope_rule_disagreement` is the share of responses that the two answer rules read
        differently: where it is not small, look at the responses.
        """
        ids = [record["id"] for record in self._records]
        assert [response.prompt_id for response in responses] == ids, "one response a prompt"
        official: list[Answer | None] = [official_answer(response.text) for response in responses]
        robust = [robust_answer(response.text) for response in responses]
        metrics = pope_metrics(
            [record["split"] for record in self._records],
            [record["label"] for record in self._records],
            official if self.config.answer_rule == "official" else robust,
        )
        differing = sum(a != b for a, b in zip(official, robust, strict=True))
        metrics["pope_rule_disagreement"] = differing / len(responses)
        metrics["pope_num_prompts"] = float(len(responses))
        return metrics

    @cached_property
    def _records(self) -> list[Record]:
        path = Path(self.config.prompts)
        records = read_records(path)
        for record in records:
            _check_record(record, path)
        return spread(records, self.config.max_prompts)


def _check_record(record: Record, path: Path) -> None:
    for key, allowed in (("label", ("yes", "no")), ("split", SPLITS)):
        if record.get(key) not in allowed:
            raise DataError(
                f"{path}, record {shown(record['id'])}: {key!r} is {shown(record.get(key))}, but "
                f"must be one of {', '.join(allowed)}."
            )
