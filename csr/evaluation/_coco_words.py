"""Which of COCO's 80 classes a caption names, by the rules of CHAIR's code.

Rohrbach et al. 2018, "Object Hallucination in Image Captioning", `utils/chair.py`: the caption in
lower case is cut into words, each is made singular, certain pairs of words become one term, and
what stands in the synonym table counts as the class whose line it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from csr.errors import DataError, shown
from csr.evaluation._plurals import singular_forms
from csr.records import read_text
from csr.vocabulary import Mention

OWN_SYNONYMS = Path(__file__).with_name("coco_synonyms.txt")
"""Classes with common synonyms, of our own choice: not the authors' table."""
NUM_CLASSES = 80

_WORD = re.compile(r"\w+(?:[-/.]\w+)*|[^\w\s]")
"""Words and single marks, as NLTK's word_tokenize divides them where it matters here: a mark
between two words keeps them apart, and a hyphen, a slash or a full stop inside keeps one word."""

_TERMS = (
    "motor bike", "motor cycle", "air plane", "traffic light", "street light", "traffic signal",
    "stop light", "fire hydrant", "stop sign", "parking meter", "suit case", "sports ball",
    "baseball bat", "baseball glove", "tennis racket", "wine glass", "hot dog", "cell phone",
    "mobile phone", "teddy bear", "hair drier", "potted plant", "laptop computer", "home plate",
    "train track",
)  # fmt: skip
"""Pairs of words that are one term; "hot dog" is no dog, and "home plate" is no object at all."""
_YOUNG_AND_OLD = ("baby", "adult")
_ANIMALS = (
    "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal",
    "cub",
)  # fmt: skip
_PASSENGER = ("jet", "train")


def two_word_terms() -> dict[str, str]:
    """Pair of words -> what it counts as: "baby bird" names no person, "passenger jet" neither."""
    animals = {f"{age} {animal}": animal for age in _YOUNG_AND_OLD for animal in _ANIMALS}
    vehicles = {f"passenger {vehicle}": vehicle for vehicle in _PASSENGER}
    own = {"bow tie": "tie", "toilet seat": "toilet"}
    return {**{term: term for term in _TERMS}, **animals, **vehicles, **own}


class CocoWords:
    """Finds mentions of the classes of one synonym table.

    Example: with the table's line "dog, puppy", `CocoWords(...).find("Two puppies and a hot dog.")`
    is `["dog", "hot dog"]`.
    """

    def __init__(self, name_of: Mapping[str, str]) -> None:
        self.names = frozenset(name_of.values())
        self._name_of = dict(name_of)
        self._terms = two_word_terms()
        wordings = [*name_of, *self._terms]
        self._singular = singular_forms({word for text in wordings for word in text.split()})

    def find(self, text: str) -> list[str]:
        """The classes in the order of their mentions, repetitions kept."""
        return [mention.name for mention in self.mentions(text)]

    def mentions(self, text: str) -> list[Mention]:
        """Every mention in order, with its place in `text`."""
        words = self._words(text)
        said = {word for word, _, _ in words}
        if {"toilet", "seat"} <= said:  # "the seat of the toilet" is no chair
            words = [each for each in words if each[0] != "seat"]
        return [
            Mention(name=self._name_of[word], start=start, end=end)
            for word, start, end in words
            if word in self._name_of
        ]

    def _words(self, text: str) -> list[tuple[str, int, int]]:
        """Singular words and merged pairs of words, each with its place."""
        # A few letters become two in lower case, and places would not fit.
        lowered = "".join(low if len(low := c.lower()) == 1 else c for c in text)
        found = [
            (self._singular.get(match[0], match[0]), match.start(), match.end())
            for match in _WORD.finditer(lowered)
        ]
        merged = []
        place = 0
        while place < len(found):
            word, start, end = found[place]
            pair = " ".join(each[0] for each in found[place : place + 2])
            place += 1
            if pair in self._terms:
                word, end = self._terms[pair], found[place][2]
                place += 1
            merged.append((word, start, end))
        return merged


def read_synonyms(path: Path) -> CocoWords:
    """The table in the authors' form: a line a class, wordings parted by ", ", the class first.

    As in their code a wording is taken as it is written: one with a space too many or a capital
    letter ("iPhone") is never found. DataError where there are not 80 lines, or one is empty.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if len(lines) != NUM_CLASSES:
        raise DataError(
            f"{path} has {len(lines)} lines, and COCO has {NUM_CLASSES} classes. Give the table of "
            'CHAIR\'s code (data/synonyms.txt), a line a class: "person, girl, boy, ...".'
        )
    name_of: dict[str, str] = {}
    for line in lines:
        name, *others = line.split(", ")
        for wording in (name, *others):
            if name_of.setdefault(wording, name) != name:
                raise DataError(
                    f"{path}: {shown(wording)} stands under both {name_of[wording]!r} and "
                    f"{name!r}, so a mention of it has no one meaning. Keep it in one line."
                )
    return CocoWords(name_of)
