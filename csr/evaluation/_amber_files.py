"""AMBER's files: what is asked, what each image shows, and which words count.

Wang et al. 2023, arXiv:2311.07397, https://github.com/junyangwang0410/AMBER. One numbering serves
all tasks: 1 to 1,004 ask for descriptions, the rest yes or no.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csr.errors import DataError, shown
from csr.evaluation._answers import LABELS
from csr.records import Entry, Record, parse_json, read_entries, read_text, text_field

GENERATIVE = "generative"
KINDS = {
    "discriminative-hallucination": ("existence",),
    "discriminative-attribute-state": ("attribute", "state"),
    "discriminative-attribute-number": ("attribute", "number"),
    "discriminative-attribute-action": ("attribute", "action"),
    "discriminative-relation": ("relation",),
    "relation": ("relation",),
}
"""`type` of an annotation -> the groups that its question counts in."""


@dataclass(frozen=True, slots=True)
class AmberFiles:
    """AMBER's `data` folder."""

    annotations: dict[int, Record]
    """Id -> `{"id", "type", "truth", "hallu"}`; `truth` is a list of objects, or yes or no."""
    associations: dict[str, list[str]]
    """Object -> words that stand for it."""
    safe_words: frozenset[str]
    """Words that are never a hallucination."""
    start: dict[str, float]
    """Counter of the authors' script -> where it starts: 0.001 below a bar, so that no ratio
    divides by zero."""

    @property
    def vocabulary(self) -> frozenset[str]:
        """The words that are looked at; any other noun counts as nothing."""
        listed = {word for words in self.associations.values() for word in words}
        return frozenset(listed | self.associations.keys())


def read_amber(folder: Path) -> AmberFiles:
    """From `annotations.json`, `relation.json`, `safe_words.txt` and `metrics.txt`.

    DataError where one is missing or has another form. Nothing in them is run.
    """
    annotations = _annotations(folder / "annotations.json")
    lines = read_text(folder / "safe_words.txt").splitlines()
    return AmberFiles(
        annotations={record["id"]: record for record in annotations},
        associations=_associations(folder / "relation.json"),
        safe_words=frozenset(line.strip() for line in lines if line.strip()),
        start=_counters(folder / "metrics.txt"),
    )


def read_queries(path: Path) -> list[Record]:
    """`{"id", "image", "query"}` records, as `query_all.json` has them."""
    records = []
    seen: set[int] = set()
    for entry in read_entries(path):
        record = entry.record()
        number = record.get("id")
        if type(number) is not int or number in seen:
            raise DataError(
                f"{entry.where}: 'id' is {shown(number)}, but must be a whole number that no other "
                "record has. Fetch the file again."
            )
        seen.add(number)
        image, query = (text_field(record, key, entry.where) for key in ("image", "query"))
        records.append({"id": str(number), "image": image, "input": query})
    return records


def _annotations(path: Path) -> list[Record]:
    records = []
    seen: set[int] = set()
    for entry in read_entries(path):
        record = entry.record()
        number, kind, truth = record.get("id"), record.get("type"), record.get("truth")
        if type(number) is not int or number in seen or not isinstance(kind, str):
            raise DataError(
                f"{entry.where}: it needs a number of its own under 'id' and a text under 'type'. "
                "Fetch annotations.json again."
            )
        seen.add(number)
        if kind == GENERATIVE:
            fine = all(_are_words(record.get(key)) for key in ("truth", "hallu"))
        else:
            fine = truth in LABELS
        if not fine:
            raise DataError(
                f"{entry.where}: a {kind} annotation cannot have {shown(truth)} under 'truth'. "
                "Fetch annotations.json again."
            )
        records.append(record)
    return records


def _associations(path: Path) -> dict[str, list[str]]:
    document = Entry(1, str(path), parse_json(read_text(path), str(path))).record()
    if not all(map(_are_words, document.values())):
        raise DataError(f'{path} must map objects to lists of words, {{"dog": ["puppy"]}}.')
    return document


def _counters(path: Path) -> dict[str, float]:
    """`name=number` a line; numbers alone are read."""
    counters: dict[str, float] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        try:
            start = float(value)
        except ValueError:
            start = math.nan
        if not equals or not math.isfinite(start) or start < 0 or name in counters:
            raise DataError(
                f"{path}, line {number}: {shown(line)} is not of the form name=number, like "
                "chair_num=0.001, each name once. Fetch the file again."
            )
        counters[name] = start
    return counters


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)
