"""Held-out captions, iteration against iteration on the same image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from csr.errors import DataError
from csr.protocols import Json
from csr.truthfulness import FalseMention
from flows.marking import num_absent
from flows.report_data import ReportAnswer, ReportCase, ReportComparison
from flows.spreading import spread
from storage.atomic import read_json
from storage.attempt import AttemptDir
from storage.tables import read_rows

NUM_CASES = 12
MIN_WORDS = 3
"""Shorter responses, such as yes and no, are figures rather than texts to read."""
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{1,2}")
"""Two letters of scripts that put no space between words, which have about two a word: Thai, Lao,
Burmese, Khmer, Japanese, Chinese."""

FEWER = "names fewer absent objects than the base"
MORE = "names more absent objects than the base"
SOME = "names as many absent objects as the base"
NONE = "names no absent object, like the base"
OUTCOMES = (FEWER, MORE, SOME, NONE)
"""What the last policy does to an image against the first, as far as can be told."""

_COLUMNS = ["prompt_id", "prompt_text", "image_uri", "text"]


@dataclass(frozen=True, slots=True)
class _Said:
    """A policy's response to a prompt, and what its benchmark found false in it."""

    row: Json
    """Of `generations`."""
    marks: tuple[FalseMention, ...] | None
    """None where the benchmark cannot tell."""


_Responses = Mapping[str, _Said]
"""By prompt id."""


def comparisons(
    attempts: Sequence[AttemptDir], benchmarks: Sequence[str]
) -> list[ReportComparison]:
    """One for each benchmark where two policies answered prompts with texts."""
    found = []
    for name in benchmarks:
        answered = [
            (attempt.id.iteration, responses)
            for attempt in attempts
            if (responses := _responses(attempt, name))
        ]
        if len(answered) > 1 and (common := _comparable([each for _, each in answered])):
            found.append(_comparison(name, common, answered))
    return found


def _responses(attempt: AttemptDir, benchmark: str) -> dict[str, _Said]:
    rows = read_rows(attempt.evaluation / f"{benchmark}.parquet", "generations", _COLUMNS)
    marks = _marks(attempt.false_mentions(benchmark))
    return {row["prompt_id"]: _Said(row, marks.get(row["prompt_id"])) for row in rows}


def _marks(path: Path) -> Mapping[str, tuple[FalseMention, ...]]:
    if not path.exists():
        return {}
    try:
        return TypeAdapter(dict[str, tuple[FalseMention, ...]]).validate_python(read_json(path))
    except ValidationError as error:
        raise DataError(
            f"{path} holds no words of responses ({error.error_count()} values of another form). "
            "Restore it from a copy, or remove it."
        ) from None


def _comparable(answered: Sequence[_Responses]) -> list[str]:
    """The prompts that every policy was asked, and the first answered with a text."""
    first = answered[0]
    return [
        name
        for name, said in first.items()
        if looks_like_prose(said.row["text"]) and all(name in responses for responses in answered)
    ]


def looks_like_prose(text: str) -> bool:
    """Whether it is a text to read, of `MIN_WORDS` words or more."""
    return len(_UNSPACED.sub(" x ", text).split()) >= MIN_WORDS


def _comparison(
    benchmark: str, common: Sequence[str], answered: Sequence[tuple[int, _Responses]]
) -> ReportComparison:
    first, last = answered[0][1], answered[-1][1]
    outcomes: dict[str, list[str]] = {}
    for name in common:
        outcome = _outcome(first[name], last[name])
        if outcome or first[name].row["text"] != last[name].row["text"]:
            outcomes.setdefault(outcome, []).append(name)
    kinds = [outcome for outcome in (*OUTCOMES, "") if outcome in outcomes]
    share = -(-NUM_CASES // max(len(kinds), 1))
    return ReportComparison(
        benchmark=benchmark,
        num_responses=len(common),
        outcomes={kind: len(outcomes.get(kind, ())) for kind in OUTCOMES} if any(kinds) else {},
        cases=[
            _case(kind, outcomes[kind][place], answered)
            for kind in kinds
            for place in spread(len(outcomes[kind]), share)
        ],
    )


def _outcome(first: _Said, last: _Said) -> str:
    """Of `OUTCOMES`; "" where nobody can tell."""
    if first.marks is None or last.marks is None:
        return ""
    before, after = num_absent(first.marks), num_absent(last.marks)
    if before == after:
        return SOME if before else NONE
    return FEWER if after < before else MORE


def _case(outcome: str, name: str, answered: Sequence[tuple[int, _Responses]]) -> ReportCase:
    row = answered[0][1][name].row
    return ReportCase(
        outcome=outcome,
        prompt_id=name,
        prompt=row["prompt_text"],
        image_path=row["image_uri"],
        answers=[
            ReportAnswer(iteration=iteration, text=said.row["text"], marks=said.marks)
            for iteration, responses in answered
            if (said := responses[name])
        ],
    )
