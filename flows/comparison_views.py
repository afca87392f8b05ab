"""A comparison as JSON, Markdown, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.compare import Comparison, MatchedRow, Row, Spread
from flows.inert import on_terminal
from flows.paired import HEADER, NOTE, PairedTests, untested_lines
from flows.tables import Sheet, plain

if TYPE_CHECKING:
    from rich.console import Group


def _figure(value: float) -> str:
    """Three decimals; none of what is counted in hundreds."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"


def cell(spread: Spread | None, figure: Callable[[float], str] = _figure, dash: str = "-") -> str:
    """Mean and range, e.g. "0.182 (0.150-0.228)"; a dash where nothing was measured."""
    if spread is None:
        return "–"
    mean, low, high = (figure(value) for value in (spread.mean, spread.min, spread.max))
    return mean if low == high else f"{mean} ({low}{dash}{high})"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(map(_escape, line))} |" for line in lines]


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values for `--json`, each verdict with its `text`."""
    document = asdict(comparison)
    for value, verdict in zip(document["verdicts"], comparison.verdicts, strict=True):
        value["text"] = verdict.text
    document["tests"] = [figure.as_json() for figure in comparison.tests.figures]
    document["untested"] = dict(comparison.tests.untested)
    return document


def to_markdown(comparison: Comparison) -> str:
    """A table, then one list item a verdict."""
    rows = (_cells(row, comparison) for row in comparison.rows)
    lines = [*markdown_table(_header(comparison), rows), ""]
    lines += [f"- {on_terminal(line)}" for line in _told(comparison)]
    for header, cells in (_matched(comparison.matched), _tests(comparison.tests)):
        if cells:
            lines += ["", *markdown_table(header, cells)]
    note = ["", NOTE] if comparison.tests.figures else []
    return "\n".join([*lines, *note, ""])


def to_rich(comparison: Comparison) -> Group:
    """Tables for the terminal: figures, verdicts, matched recall, and the paired tests."""
    from rich.console import Group

    rows = [_cells(row, comparison) for row in comparison.rows]
    parts: list[Any] = [Sheet(_header(comparison), rows), *map(plain, _told(comparison))]
    header, matched = _matched(comparison.matched)
    if matched:
        parts.append(Sheet(header, matched, "At matched recall"))
    header, tests = _tests(comparison.tests)
    if tests:
        parts += [Sheet(header, tests, "Paired tests"), plain(NOTE)]
    return Group(*parts)


def _told(comparison: Comparison) -> list[str]:
    """Verdicts, then cautions: one sentence each and more."""
    cautions = [*comparison.cautions, *untested_lines(comparison.tests.untested)]
    verdicts = [verdict.text for verdict in comparison.verdicts]
    return [*verdicts, *(f"Caution: {caution}." for caution in cautions)]


def _matched(matched: Sequence[MatchedRow]) -> tuple[list[str], list[list[str]]]:
    """The table of chair_s at matched recall; no rows where there is none."""
    falls = matched[0].at if matched else ()
    header = [f"recall at most {fall * 100:.0f} points lower" for fall in falls]
    rows = [[row.label, *map(cell, row.at.values())] for row in matched]
    return ["lowest chair_s with", *header], rows


def _tests(tests: PairedTests) -> tuple[list[str], list[list[str]]]:
    return list(HEADER), [figure.cells() for figure in tests.figures]


def _escape(text: str) -> str:
    return on_terminal(text).replace("|", "\\|")


def _header(comparison: Comparison) -> list[str]:
    return ["configuration", "iteration", "seeds", *comparison.columns]


def _cells(row: Row, comparison: Comparison) -> list[str]:
    seeds = ", ".join(map(str, row.seeds))
    figures = [cell(row.metrics.get(column)) for column in comparison.columns]
    return [row.label, str(row.iteration), seeds, *figures]
