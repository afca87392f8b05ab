"""Tables for the terminal. What a model, a data set or a path says is shown in them, not obeyed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.inert import on_terminal

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text


def plain(value: object, style: str = "") -> Text:
    """The value as it is written: brackets are no markup, and no control character gets through."""
    from rich.text import Text

    if isinstance(value, Text):
        return value
    return Text("\n".join(on_terminal(line) for line in str(value).split("\n")), style=style)


def table(
    header: Sequence[object], rows: Iterable[Sequence[object]] = (), title: object = ""
) -> Table:
    """A table of plain cells. What is too wide goes on in the next line, and nothing is cut."""
    from rich.table import Table

    view = Table(title=plain(title, "table.title") if title else None)
    for name in header:
        view.add_column(plain(name), overflow="fold")
    for row in rows:
        view.add_row(*map(plain, row))
    return view


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table that has one line a figure where its columns are too many for the terminal.

    The first column then becomes the heading, over as many tables as it takes.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The one table or the several that fit."""
        if _width([self.header, *self.rows]) <= options.max_width or not self.rows:
            yield table(self.header, self.rows, self.title)
            return
        title = self.title
        for some in self._fitting(options.max_width):
            heads = [self.header, *some]
            turned = [list(line) for line in zip(*heads, strict=True)]
            yield table(turned[0], turned[1:], title)
            title = ""

    def _fitting(self, max_width: int) -> Iterable[list[Sequence[str]]]:
        """The rows, as many together as fit beside each other; each alone where none do."""
        some: list[Sequence[str]] = []
        for row in self.rows:
            if some and _width(list(zip(self.header, *some, row, strict=True))) > max_width:
                yield some
                some = []
            some.append(row)
        yield some


def _width(lines: Sequence[Sequence[Any]]) -> int:
    """Characters of a table with these lines: its columns, and what rich draws around them."""
    from rich.cells import cell_len

    columns = zip(*lines, strict=True)
    return sum(max(map(cell_len, column)) + 3 for column in columns) + 1
