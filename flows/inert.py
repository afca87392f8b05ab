"""Text that a model or a data set wrote, for a markdown page or a terminal: shown, not obeyed."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

MAX_CHARACTERS = 2_500
"""Of one text; a response of 512 tokens is about as long."""

_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that reverse what stands after them, to the end of the paragraph."""


def as_code(text: str, max_characters: int = MAX_CHARACTERS) -> str:
    """One line of inline code: no backtick ends it, no character turns others about."""
    line = " ".join(text.replace("`", "'").split())
    cut = line if len(line) <= max_characters else f"{line[:max_characters]} ... (cut)"
    seen = "".join("\ufffd" if _is_unseen(c) else c for c in cut)
    return f"`{seen or '(nothing)'}`"


def on_terminal(text: str) -> str:
    """As long as the text, without line ends and without characters that a terminal obeys."""
    return "".join(" " if c in "\t\n\r" else "\ufffd" if _is_unseen(c) else c for c in text)


def fitting(parts: Iterable[T], num_bytes: Callable[[T], int], max_bytes: int) -> list[T]:
    """The leading parts that together stay within `max_bytes`."""
    kept: list[T] = []
    total = 0
    for part in parts:
        total += num_bytes(part)
        if total > max_bytes:
            break
        kept.append(part)
    return kept


def _is_unseen(character: str) -> bool:
    """Control characters and halves of characters too."""
    return character in _TURNING or unicodedata.category(character) in ("Cc", "Cs")
