"""Writes the pages that the code itself tells: recipe fields, commands, tables, messages.

They are made when the site is built and kept out of version control, so they cannot be stale.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.generate import commands, messages, tables
from flows import recipe_fields

PAGES: dict[str, Callable[[], str]] = {
    "recipe.md": recipe_fields.page,
    "commands.md": commands.page,
    "tables.md": tables.page,
    "messages.md": messages.page,
}
"""File below docs/reference -> what makes its text."""


def write_pages(folder: Path) -> None:
    """Bring the folder up to date; a page that is as it was is left alone."""
    folder.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        path, text = folder / name, page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
