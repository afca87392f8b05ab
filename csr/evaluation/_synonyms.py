"""Finds the names of things in free text, by a table of their synonyms."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


class SynonymTable:
    """Maps every listed wording to one canonical name.

    Wordings match whole words, in any case and with any white space between words.
    The longest wording wins and its words are used up: "hot dog" is not also a "dog".
    A plural is found only where the table lists it, so nothing is guessed.

    Example: `SynonymTable({"dog": ["dog", "dogs"], "hot dog": ["hot dog"]})
    .find("Two dogs eat a hot dog.")` is `["dog", "hot dog"]`.
    """

    def __init__(self, wordings: Mapping[str, Sequence[str]]) -> None:
        self.names = frozenset(wordings)
        self._name_of = {
            _normalise(wording): name for name, listed in wordings.items() for wording in listed
        }
        longest_first = sorted(self._name_of, key=lambda wording: (-len(wording), wording))
        any_wording = "|".join(re.escape(w).replace(r"\ ", r"\s+") for w in longest_first)
        # An empty alternation would match everywhere; `(?!)` matches nowhere.
        self._pattern = re.compile(rf"(?<!\w)(?:{any_wording or '(?!)'})(?!\w)")

    def find(self, text: str) -> list[str]:
        """Canonical names in the order of their mentions, repetitions kept."""
        return [self._name_of[_normalise(found)] for found in self._pattern.findall(text.lower())]


def _normalise(wording: str) -> str:
    return " ".join(wording.lower().split())
