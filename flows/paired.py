"""Paired tests of two attempts as they are shown; `flows/paired_attempts.py` makes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from csr.intervals import PairedTest

NOTE = (
    "Intervals are of 95 %. p is two-sided, of no difference on these prompts; p (Holm) is "
    "adjusted for all tests of this table. Neither says what another training seed would do."
)
HEADER = ("figure", "before", "after", "difference", "p", "p (Holm)", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedFigure:
    """One figure of two attempts, with its test."""

    before_id: str
    """The attempt that is compared with, e.g. "tiny-b0f2/00.1"."""
    after_id: str
    benchmark: str
    test: PairedTest
    p_adjusted: float
    """By Holm, over all tests that stand together."""

    def cells(self) -> list[str]:
        """One row under `HEADER`."""
        test = self.test
        interval = ""
        if test.ci_low is not None and test.ci_high is not None:
            interval = f" [{test.ci_low:+.3f}, {test.ci_high:+.3f}]"
        return [
            test.metric,
            f"{self.before_id} {test.before:.3f}",
            f"{self.after_id} {test.after:.3f}",
            f"{test.difference:+.3f}{interval}",
            _p(test.p_value),
            _p(self.p_adjusted),
            f"{test.method}, {test.num_prompts} prompts, {test.num_images} images",
        ]

    def as_json(self) -> dict[str, object]:
        """One flat object."""
        flat = dataclasses.asdict(self)
        return {**flat, **flat.pop("test")}


@dataclass(frozen=True, slots=True)
class PairedTests:
    """All tests of one question, and what could not be tested."""

    figures: tuple[ComparedFigure, ...] = ()
    untested: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """"<before> <after> <benchmark>" -> why its figures cannot be compared."""


def untested_lines(untested: Mapping[str, str]) -> list[str]:
    """What could not be tested and why, a sentence without its full stop each."""
    lines = []
    for what, why in untested.items():
        before, after, benchmark = what.split(" ", 2)
        lines.append(f"{benchmark} of {before} and {after} is not tested: {why}")
    return lines


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
