"""Held-out captions, iteration against iteration on the same image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from csr.protocols import Json
from flows.report_data import ReportAnswer, ReportCase, ReportComparison
from flows.spreading import spread
from flows.truth import Truth
from storage.attempt import AttemptDir
from storage.tables import read_rows

NUM_CASES = 12
MIN_MEAN_WORDS = 3
"""Shorter responses, such as yes and no, are figures rather than texts to read."""

FEWER = "names fewer absent objects than the base"
MORE = "names more absent objects than the base"
SOME = "names as many absent objects as the base"
NONE = "names no absent object, like the base"
OUTCOMES = (FEWER, MORE, SOME, NONE)
"""What the last policy does to an image against the first, as far as can be told."""

_COLUMNS = ["prompt_id", "prompt_text", "image_uri", "text"]

_Rows = Mapping[str, Json]
"""Prompt id -> row of `generations`."""


def comparisons(
    attempts: Sequence[AttemptDir], benchmarks: Sequence[str], truth: Truth
) -> list[ReportComparison]:
    """One for each benchmark whose responses are texts, where two policies answered it."""
    found = []
    for name in benchmarks:
        answered = [
            (attempt.id.iteration, {row["prompt_id"]: row for row in rows})
            for attempt in attempts
            if (rows := read_rows(attempt.evaluation / f"{name}.parquet", "generations", _COLUMNS))
        ]
        if len(answered) > 1 and _is_prose(list(answered[0][1].values())):
            found.append(_comparison(name, answered, truth))
    return found


def _is_prose(rows: Sequence[Json]) -> bool:
    num_words = sum(len(row["text"].split()) for row in rows)
    return num_words >= MIN_MEAN_WORDS * len(rows)


def _comparison(
    benchmark: str, answered: Sequence[tuple[int, _Rows]], truth: Truth
) -> ReportComparison:
    first, last = answered[0][1], answered[-1][1]
    common = [name for name in first if all(name in rows for _, rows in answered)]
    outcomes: dict[str, list[str]] = {}
    for name in common:
        outcome = _outcome(first[name], last[name], truth)
        if outcome or first[name]["text"] != last[name]["text"]:
            outcomes.setdefault(outcome, []).append(name)
    kinds = [outcome for outcome in (*OUTCOMES, "") if outcome in outcomes]
    share = -(-NUM_CASES // max(len(kinds), 1))
    return ReportComparison(
        benchmark=benchmark,
        num_images=len(common),
        outcomes={kind: len(outcomes.get(kind, ())) for kind in OUTCOMES} if any(kinds) else {},
        cases=[
            _case(kind, outcomes[kind][place], answered, truth)
            for kind in kinds
            for place in spread(len(outcomes[kind]), share)
        ],
    )


def _outcome(first: Json, last: Json, truth: Truth) -> str:
    """Of `OUTCOMES`; "" where nobody can tell."""
    known = truth.of(first["image_uri"])
    if known is None:
        return ""
    before, after = known.num_absent(first["text"]), known.num_absent(last["text"])
    if before == after:
        return SOME if before else NONE
    return FEWER if after < before else MORE


def _case(
    outcome: str, name: str, answered: Sequence[tuple[int, _Rows]], truth: Truth
) -> ReportCase:
    row = answered[0][1][name]
    said = [(iteration, rows[name]["text"].strip()) for iteration, rows in answered]
    return ReportCase(
        outcome=outcome,
        prompt_id=name,
        prompt=row["prompt_text"],
        image_path=row["image_uri"],
        answers=[
            ReportAnswer(iteration=iteration, text=text, marks=truth.marks(text, row["image_uri"]))
            for iteration, text in said
        ],
    )
