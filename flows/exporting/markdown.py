"""Small pieces of Markdown for cards. What users and models wrote goes through `as_code`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a "|" in a cell does not end it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
                     for line in lines)  # fmt: skip


def indented(value: Any) -> str:
    """JSON as an indented block, which nothing inside it can end."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "\n".join(f"    {line}" for line in text.splitlines())


def warned(sentences: Iterable[str]) -> str:
    """Each as a quoted paragraph; "" for none."""
    return "\n\n".join(f"> **{' '.join(sentence.split())}**" for sentence in sentences)


def sections(*parts: str) -> str:
    """The parts that there are, a blank line between."""
    return "\n\n".join(part for part in parts if part) + "\n"


def shareable(value: Any) -> Any:
    """Settings without this machine's folders: an absolute path becomes its last part."""
    if isinstance(value, dict):
        return {key: shareable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [shareable(each) for each in value]
    if isinstance(value, str) and value.startswith("/"):
        return PurePath(value).name
    return value
