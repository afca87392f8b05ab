"""A comparison as JSON, Markdown, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.compare import Comparison, MatchedRow, Row, Spread
from flows.paired import HEADER, NOTE, PairedTests

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


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
    table = markdown_table(_header(comparison), rows)
    verdicts = [f"- {verdict.text}" for verdict in comparison.verdicts]
    cautions = [f"- Caution: {caution}." for caution in comparison.cautions]
    lines = [*table, "", *verdicts, *cautions, "", *_matched_lines(comparison.matched)]
    return "\n".join([*lines, *_test_lines(comparison)])


def _test_lines(comparison: Comparison) -> list[str]:
    """Markdown table of the paired tests; nothing where there is none."""
    figures = comparison.tests.figures
    if not figures:
        return []
    return [*markdown_table(HEADER, [figure.cells() for figure in figures]), "", NOTE, ""]


def _matched_lines(matched: Sequence[MatchedRow]) -> list[str]:
    """Markdown table of chair_s at matched recall; nothing where there is none."""
    if not matched:
        return []
    falls = [f"recall at most {fall * 100:.0f} points lower" for fall in matched[0].at]
    rows = ([row.label, *map(cell, row.at.values())] for row in matched)
    return [*markdown_table(["lowest chair_s with", *falls], rows), ""]


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def to_rich(comparison: Comparison) -> Group:
    """Tables for the terminal: the figures with the verdicts below, and the paired tests."""
    from rich.console import Group

    parts = [_figures_table(comparison)]
    if comparison.tests.figures:
        parts.append(tests_table(comparison.tests))
    return Group(*parts)


def tests_table(tests: PairedTests) -> Table:
    """The paired tests for the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*HEADER, title="Paired tests", caption=Text(NOTE))
    table.caption_justify = "left"
    for figure in tests.figures:
        table.add_row(*map(Text, figure.cells()))
    return table


def _figures_table(comparison: Comparison) -> Table:
    from rich.table import Table
    from rich.text import Text

    below = [verdict.text for verdict in comparison.verdicts]
    below += [f"Caution: {caution}." for caution in comparison.cautions]
    table = Table(caption=Text("\n".join(below)))
    table.caption_justify = "left"
    for title in _header(comparison):
        table.add_column(Text(title), overflow="fold")
    for row in comparison.rows:
        table.add_row(*map(Text, _cells(row, comparison)))
    return table


def _header(comparison: Comparison) -> list[str]:
    return ["configuration", "iteration", "seeds", *comparison.columns]


def _cells(row: Row, comparison: Comparison) -> list[str]:
    seeds = ", ".join(map(str, row.seeds))
    figures = [cell(row.metrics.get(column)) for column in comparison.columns]
    return [row.label, str(row.iteration), seeds, *figures]
