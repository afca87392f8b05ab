"""Paired tests of two attempts that answered the same prompts, image by image."""

from __future__ import annotations

from collections.abc import Sequence

from csr.intervals import PairedTest, holm, paired_tests
from csr.outcomes import Outcome
from flows.conditions import different_conditions, read_conditions
from flows.metric_names import TESTED_METRICS
from flows.paired import ComparedFigure, PairedTests
from storage.attempt import AttemptDir
from storage.rows import outcomes_from_table
from storage.tables import read_table


def compared(pairs: Sequence[tuple[AttemptDir, AttemptDir]]) -> PairedTests:
    """Every figure of `TESTED_METRICS` of each (before, after), adjusted over all of them."""
    found: list[tuple[AttemptDir, AttemptDir, str, PairedTest]] = []
    untested: dict[str, str] = {}
    for before, after in pairs:
        for benchmark in _benchmarks(before, after):
            reason = _incomparable(before, after, benchmark)
            if reason:
                untested[f"{before.id} {after.id} {benchmark}"] = reason
                continue
            old, new = (_outcomes(side, benchmark) for side in (before, after))
            found += [(before, after, benchmark, test) for test in paired_tests(old, new)]
    adjusted = holm([test.p_value for *_, test in found])
    figures = tuple(
        ComparedFigure(
            before_id=str(before.id),
            after_id=str(after.id),
            benchmark=benchmark,
            test=test,
            p_adjusted=p_adjusted,
        )
        for (before, after, benchmark, test), p_adjusted in zip(found, adjusted, strict=True)
    )
    return PairedTests(figures, untested)


def _benchmarks(before: AttemptDir, after: AttemptDir) -> list[str]:
    """Those that both were asked, by what the attempts' recipes name."""
    named = [
        [each["name"] for each in side.manifest.read().config.get("evaluation", [])]
        for side in (before, after)
    ]
    return [name for name in named[0] if name in named[1]]


def _incomparable(before: AttemptDir, after: AttemptDir, benchmark: str) -> str:
    """Why no test can be made; empty where one can."""
    if before.path == after.path:
        return "it is the same attempt"
    for side in (before, after):
        if not side.outcomes(benchmark).exists():
            return f"{side.id} has no outcomes of single responses: evaluate it with this release"
    conditions = [read_conditions(side).get(benchmark, {}) for side in (before, after)]
    different = different_conditions(*conditions)
    return f"asked under other conditions ({', '.join(different)})" if different else ""


def _outcomes(attempt: AttemptDir, benchmark: str) -> list[Outcome]:
    stored = outcomes_from_table(read_table(attempt.outcomes(benchmark), "outcomes"))
    return [outcome for outcome in stored if outcome.metric in TESTED_METRICS]
