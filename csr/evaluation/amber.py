"""AMBER: descriptions against annotated objects, and yes-or-no questions of three kinds.

Wang et al. 2023, "An LLM-free Multi-dimensional Benchmark for MLLMs Hallucination Evaluation",
arXiv:2311.07397. Reads the authors' own files. Objects in descriptions are found without the
authors' language models, so the figures of the generative task are near theirs and not theirs: see
docs/evaluation.md. In the yes-or-no task "no" is the positive class, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from csr.config import ComponentConfig, Location
from csr.errors import DataError
from csr.evaluation._amber_figures import description_ratios, figures_of, question_ratios
from csr.evaluation._amber_files import GENERATIVE, KINDS, AmberFiles, read_amber, read_queries
from csr.evaluation._amber_words import AmberWords
from csr.evaluation._answers import Answer, robust_answer
from csr.evaluation._benchmark import SelectiveBenchmark
from csr.evaluation._image_ids import keep_listed
from csr.evaluation._records import build_prompts, count_prompts
from csr.outcomes import Outcome, outcomes_of
from csr.planning import ExpectedResponse, PlannedCall, PlannedQuestions
from csr.records import Record
from csr.truthfulness import FalseMention, absent_objects
from csr.types import GeneratedResponse, Prompt


class Config(ComponentConfig):
    """Where AMBER is, and how answers are read."""

    annotations: Location
    """AMBER's `data` folder, with `annotations.json`, `relation.json`, `safe_words.txt` and
    `metrics.txt`."""
    queries: Location
    """What is asked, one of the files in `data/query`, such as `query_all.json`."""
    images: Location
    """Folder with `AMBER_1.jpg` and the others."""
    image_ids: Location | None = None
    """File with the images to ask about, a JSON list or one a line; None takes all."""
    max_response_tokens: int = Field(default=512, ge=1)
    """Tokens of a description, and of an answer, which is short by itself."""
    answer_rule: Literal["exact", "robust"] = "robust"
    """`exact`: the authors' script, for which an answer is "Yes" or "No" and nothing else;
    `robust`: the first yes or no word decides. An answer without one is wrong."""


def build(config: Config) -> AmberBenchmark:
    """The benchmark. Files are read when its prompts are asked for."""
    return AmberBenchmark(config)


def planned_questions(config: Config, expected: ExpectedResponse) -> PlannedQuestions:
    """All of them counted as descriptions, as long as a response: yes and no take less."""
    length = expected.cut(config.max_response_tokens)
    return PlannedQuestions(
        num_prompts=count_prompts(build(config).prompt_ids),
        calls=(PlannedCall(name="response", generated_tokens=length),),
    )


@dataclass
class AmberBenchmark(SelectiveBenchmark):
    """Asks AMBER's queries and scores the responses."""

    config: Config
    response_fields: tuple[str, str] = field(default=("id", "response"), init=False)
    """Of a record in a file of responses, as the authors' script reads them."""

    def prompt_ids(self) -> Sequence[str]:
        """The queries' ids; no image is looked at."""
        return [record["id"] for record in self._records]

    def evaluate(
        self,
        responses: Sequence[GeneratedResponse],
        label_logprobs: Sequence[tuple[float, ...]] = (),
    ) -> dict[str, float]:
        """The figures of the tasks that are asked, as fractions; see `figures_of`.

        `amber_unread_share` is the share of yes-or-no answers without a yes or a no.
        """
        outcomes = self.outcomes(responses)
        metrics = figures_of(outcomes, self._files.start)
        answers = [
            self._answer(response.text)
            for response, kind in zip(responses, self._kinds, strict=True)
            if kind != GENERATIVE
        ]
        if answers:
            metrics["amber_unread_share"] = answers.count(None) / len(answers)
        metrics["amber_num_descriptions"] = float(len(responses) - len(answers))
        metrics["amber_num_questions"] = float(len(answers))
        return metrics

    def outcomes(
        self,
        responses: Sequence[GeneratedResponse],
        label_logprobs: Sequence[tuple[float, ...]] = (),
    ) -> Sequence[Outcome]:
        """Each response's part in the figures of its task."""
        assert [r.prompt_id for r in responses] == self.prompt_ids(), "one response a prompt"
        found: list[Outcome] = []
        for record, response in zip(self._records, responses, strict=True):
            annotation = self._files.annotations[int(record["id"])]
            if annotation["type"] == GENERATIVE:
                counts = self._words.count(response.text, annotation["truth"], annotation["hallu"])
                ratios = description_ratios(counts)
            else:
                answer = self._answer(response.text)
                ratios = question_ratios(annotation["truth"], answer, KINDS[annotation["type"]])
            found += outcomes_of(record["id"], record["image"], ratios)
        return found

    def false_mentions(
        self, responses: Sequence[GeneratedResponse]
    ) -> list[list[FalseMention] | None]:
        """What counts as hallucinated in descriptions; None of an answer to a yes-or-no question,
        whose annotation does not tell what else the image shows.
        """
        found: list[list[FalseMention] | None] = []
        for record, response in zip(self._records, responses, strict=True):
            annotation = self._files.annotations[int(record["id"])]
            if annotation["type"] == GENERATIVE:
                words = self._words.hallucinated(response.text, annotation["truth"])
                found.append(absent_objects(words, ()))
            else:
                found.append(None)
        return found

    def response_records(self, responses: Sequence[GeneratedResponse]) -> list[Record]:
        """The responses as the authors' script reads them: answers as "Yes" or "No" where one can
        be read, else as they are.
        """
        records: list[Record] = []
        for response, kind in zip(responses, self._kinds, strict=True):
            answer = None if kind == GENERATIVE else self._answer(response.text)
            said = response.text if answer is None else answer.capitalize()
            records.append({"id": int(response.prompt_id), "response": said})
        return records

    def _answer(self, text: str) -> Answer | None:
        if self.config.answer_rule == "robust":
            return robust_answer(text)
        exact: dict[str, Answer] = {"Yes": "yes", "No": "no"}
        return exact.get(text)

    @property
    def _kinds(self) -> list[str]:
        return [self._files.annotations[int(record["id"])]["type"] for record in self._records]

    @cached_property
    def _files(self) -> AmberFiles:
        return read_amber(Path(self.config.annotations))

    @cached_property
    def _words(self) -> AmberWords:
        return AmberWords(self._files)

    @cached_property
    def _records(self) -> list[Record]:
        path = Path(self.config.queries)
        records = read_queries(path)
        for record in records:
            annotation = self._files.annotations.get(int(record["id"]))
            if annotation is None or annotation["type"] not in (GENERATIVE, *KINDS):
                told = "no annotation" if annotation is None else f"type {annotation['type']!r}"
                raise DataError(
                    f"{path}: the query {record['id']} has {told} in annotations.json. Take both "
                    "files of one release."
                )
        listed = Path(self.config.image_ids) if self.config.image_ids else None
        chosen = keep_listed(records, lambda record: record["image"], listed)
        return [r for r in chosen if self._kept is None or r["id"] in self._kept]

    @cached_property
    def _prompts(self) -> list[Prompt]:
        return build_prompts(self._records, Path(self.config.images), "amber")
