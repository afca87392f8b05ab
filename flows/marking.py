"""A text cut into pieces, so that a page or a terminal can show which words are false."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from csr.truthfulness import FalseMention


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a text, and what is false about it."""

    text: str
    wrong: str = ""
    """ "" for nothing, "object" for one that the image does not show, else the attribute."""

    @property
    def told(self) -> str:
        """What is said to who cannot see the mark, or points at it; "" for nothing."""
        if not self.wrong:
            return ""
        return "not in the image" if self.wrong == "object" else f"wrong {self.wrong}"


def pieces(text: str, marks: Sequence[FalseMention] | None) -> list[Piece]:
    """Joined they are the text again, without outer white space. Without marks it is one piece."""
    found: list[Piece] = []
    start = 0
    for mark in marks or ():
        found += [Piece(text[start : mark.start]), Piece(text[mark.start : mark.end], mark.kind)]
        start = mark.end
    found.append(Piece(text[start:]))
    found[0] = replace(found[0], text=found[0].text.lstrip())
    found[-1] = replace(found[-1], text=found[-1].text.rstrip())
    return [piece for piece in found if piece.text]


def num_absent(marks: Sequence[FalseMention] | None) -> int:
    """Mentions of absent objects among the marks."""
    return sum(mark.kind == "object" for mark in marks or ())
