"""The names of things and the wordings that stand for them, and their mentions in free text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csr.errors import DataError
from csr.records import read_text

Wordings = Mapping[str, Sequence[str]]
"""Canonical name -> the wordings that stand for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """Where a text names something: `text[start:end]` is a wording of `name`.

    Example: in "Two dogs." `Mention(name="dog", start=4, end=8)`
    """

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Vocabulary:
    """The wordings of objects, and of the values of each attribute."""

    objects: SynonymTable
    attributes: Mapping[str, SynonymTable]

    @property
    def tables(self) -> dict[str, SynonymTable]:
        """Every table by the kind of what it names; "object" is the objects' own."""
        return {"object": self.objects, **self.attributes}


def read_vocabulary(path: Path) -> Vocabulary:
    """Wordings of objects, and of each attribute's values, from a JSON file.

    `{"objects": {"circle": ["circle", "circles"]}, "attributes": {"colour": {"red":
    ["red"]}}}`; `attributes` may be absent. DataError where the shape is another.
    """
    try:
        document = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"The vocabulary {path} is not JSON ({error}).") from None
    attributes = document.get("attributes", {}) if isinstance(document, dict) else None
    if not isinstance(attributes, dict) or not document.get("objects"):
        raise DataError(
            f'The vocabulary {path} is not of the form {{"objects": {{name: [wordings]}}, '
            '"attributes": {attribute: {value: [wordings]}}}.'
        )
    for where, wordings in {"objects": document["objects"], **attributes}.items():
        _check_wordings(wordings, f"The vocabulary {path}, under {where!r}")
    return Vocabulary(
        SynonymTable(document["objects"]),
        {name: SynonymTable(values) for name, values in attributes.items()},
    )


class SynonymTable:
    """Maps every listed wording to one canonical name.

    Wordings match whole words, in any case and with any white space between words.
    The longest wording wins and its words are used up: "hot dog" is not also a "dog".
    A plural is found only where the table lists it, so nothing is guessed.

    Example: `SynonymTable({"dog": ["dog", "dogs"], "hot dog": ["hot dog"]})
    .find("Two dogs eat a hot dog.")` is `["dog", "hot dog"]`.
    """

    def __init__(self, wordings: Wordings) -> None:
        self.wordings = wordings
        self.names = frozenset(wordings)
        self._name_of = {
            normalised(wording): name for name, listed in wordings.items() for wording in listed
        }
        longest_first = sorted(self._name_of, key=lambda wording: (-len(wording), wording))
        any_wording = "|".join(re.escape(w).replace(r"\ ", r"\s+") for w in longest_first)
        # An empty alternation would match everywhere; `(?!)` matches nowhere.
        self._pattern = re.compile(rf"(?<!\w)(?:{any_wording or '(?!)'})(?!\w)")

    def find(self, text: str) -> list[str]:
        """Canonical names in the order of their mentions, repetitions kept."""
        return [mention.name for mention in self.mentions(text)]

    def mentions(self, text: str) -> list[Mention]:
        """Every mention in order, with its place in `text`."""
        # A few letters become two in lower case, and places would not fit.
        lowered = "".join(low if len(low := c.lower()) == 1 else c for c in text)
        return [
            Mention(name=self._name_of[normalised(found[0])], start=found.start(), end=found.end())
            for found in self._pattern.finditer(lowered)
        ]


def normalised(wording: str) -> str:
    """As wordings are compared: in lower case, words one space apart."""
    return " ".join(wording.lower().split())


def _check_wordings(wordings: Any, where: str) -> None:
    if not isinstance(wordings, dict):
        raise DataError(f"{where}: not a mapping from names to lists of wordings.")
    owner: dict[str, str] = {}
    for name, listed in wordings.items():
        if not isinstance(listed, list) or not all(
            isinstance(w, str) and w.strip() for w in listed
        ):
            raise DataError(f"{where}: the wordings of {name!r} must be a list of words.")
        for wording in listed:
            other = owner.setdefault(wording.lower().strip(), name)
            if other != name:
                raise DataError(
                    f"{where}: {wording!r} is listed for both {other!r} and {name!r}, so a mention "
                    "of it has no one meaning. Keep it under one name."
                )
