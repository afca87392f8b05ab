"""How like their references the policy's rationales are: ILLUME's measure of progress
(arXiv:2208.08241, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import Field

from csr.config import ComponentConfig, Location
from csr.errors import DataError, shown
from csr.evaluation._benchmark import GreedyBenchmark
from csr.evaluation._records import build_prompts, num_records, read_records
from csr.outcomes import Outcome, outcomes_of
from csr.planning import ExpectedResponse, PlannedCall, PlannedQuestions
from csr.protocols import Benchmark
from csr.records import Record
from csr.rouge import rouge_l
from csr.types import FinishReason, GeneratedResponse, Prompt


class Config(ComponentConfig):
    """What is asked, and what is compared with."""

    prompts: Location
    """JSONL file or JSON list: records with `id`, `image`, `input`, and `reference`, or a list of
    several under `references`."""
    images: Location
    """Folder that the records' image paths are relative to."""
    max_response_tokens: int = Field(default=100, ge=1)
    """Tokens of a rationale."""


def build(config: Config) -> Benchmark:
    """The benchmark. Files are read when its prompts are asked for."""
    return RationaleBenchmark(config)


def planned_questions(config: Config, expected: ExpectedResponse) -> PlannedQuestions:
    """A rationale for each question, as long as a response."""
    length = expected.cut(config.max_response_tokens)
    return PlannedQuestions(
        num_prompts=num_records(config.prompts, None),
        calls=(PlannedCall(name="rationale", generated_tokens=length),),
    )


@dataclass
class RationaleBenchmark(GreedyBenchmark):
    """Asks for rationales and compares them. Implements `csr.protocols.Benchmark`."""

    config: Config

    def evaluate(
        self,
        responses: Sequence[GeneratedResponse],
        label_logprobs: Sequence[tuple[float, ...]] = (),
    ) -> dict[str, float]:
        """`rationale_rouge_l`: mean over rationales of the best ROUGE-L with a reference.

        Beside it `rationale_match_share`, of those that say a reference word for word,
        `mean_rationale_tokens`, and `rationale_truncated_share`, cut by the token limit.
        """
        scores = self._scores(responses)
        num = len(responses)
        cut = sum(response.finish_reason is FinishReason.LENGTH for response in responses)
        return {
            "rationale_rouge_l": math.fsum(scores) / num,
            "rationale_match_share": sum(math.isclose(score, 1.0) for score in scores) / num,
            "mean_rationale_tokens": sum(len(r.token_ids) for r in responses) / num,
            "rationale_truncated_share": cut / num,
        }

    def outcomes(
        self,
        responses: Sequence[GeneratedResponse],
        label_logprobs: Sequence[tuple[float, ...]] = (),
    ) -> Sequence[Outcome]:
        """Each rationale's likeness."""
        rows = zip(self._records, self._scores(responses), strict=True)
        return [
            outcome
            for record, score in rows
            for outcome in outcomes_of(
                record["id"], record["image"], [("rationale_rouge_l", score, 1)]
            )
        ]

    def _scores(self, responses: Sequence[GeneratedResponse]) -> list[float]:
        return [
            max(rouge_l(response.text, reference) for reference in _references(record))
            for response, record in zip(responses, self._records, strict=True)
        ]

    @cached_property
    def _prompts(self) -> list[Prompt]:
        return build_prompts(self._records, Path(self.config.images), "rationales")

    @cached_property
    def _records(self) -> list[Record]:
        path = Path(self.config.prompts)
        records = read_records(path)
        for record in records:
            references = _references(record)
            if not references or not all(isinstance(r, str) and r.strip() for r in references):
                raise DataError(
                    f"{path}, record {shown(record['id'])}: it has no `reference` to compare a "
                    "rationale with. Give one text, or several as `references`."
                )
        return records


def _references(record: Record) -> list[str]:
    given = record.get("references")
    return given if isinstance(given, list) else [record.get("reference", "")]
