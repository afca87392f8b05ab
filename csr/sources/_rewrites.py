"""Rewrites an answer by rule so that it keeps its form and says something false.

What is put in stands nowhere in the answer: another object that often occurs together with those
that are named, another colour, number or place. So the rewrite contradicts the answer, and the
image as far as the answer is true and complete.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from csr.errors import DataError
from csr.records import Record, read_entries
from csr.vocabulary import Mention, SynonymTable, Vocabulary, normalised, read_vocabulary

_OBJECT = "object"
_ARTICLE = re.compile(r"\b(an?)(\s+)$", re.IGNORECASE)
_VOWELS = "aeiou"

Cooccurrence = Counter[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One thing that was said otherwise.

    Example: `Edit(kind="object", before="circle", after="ring")`
    """

    kind: str
    """"object", or an attribute of the vocabulary."""
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """An answer's text with some things said otherwise."""

    text: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class Knowledge:
    """What the rules know. DataError where the files are no use; each is read when needed."""

    vocabulary_path: Path
    references_path: Path

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The wordings of objects and attributes."""
        return read_vocabulary(self.vocabulary_path)

    @cached_property
    def together(self) -> Cooccurrence:
        """What occurs together in the prompt file's references, or in LLaVA's answers."""
        path = self.references_path
        values = [entry.value for entry in read_entries(path)]
        texts = [text for value in values if isinstance(value, dict) for text in _answers(value)]
        counts = cooccurrence(texts, self.vocabulary.objects)
        if not counts:
            raise DataError(
                f"No `reference`, nor an answer in `conversations`, in {path} names two objects of "
                f"the vocabulary {self.vocabulary_path}, so what usually occurs together cannot be "
                "told. Give a vocabulary of the things that the references are about."
            )
        return counts


def _answers(record: Record) -> list[str]:
    turns = record.get("conversations")
    answers = [
        turn.get("value")
        for turn in (turns if isinstance(turns, list) else ())
        if isinstance(turn, dict) and turn.get("from") == "gpt"
    ]
    return [text for text in [record.get("reference"), *answers] if isinstance(text, str)]


def cooccurrence(answers: Iterable[str], objects: SynonymTable) -> Cooccurrence:
    """How many answers name both objects, for each ordered pair of different ones."""
    counts: Cooccurrence = Counter()
    for answer in answers:
        named = sorted(set(objects.find(answer)))
        counts.update((one, other) for one in named for other in named if one != other)
    return counts


def rewrite(
    text: str, vocabulary: Vocabulary, together: Cooccurrence, num_edits: int, rng: random.Random
) -> Rewrite | None:
    """The text with up to `num_edits` things said otherwise; None where there is nothing to say.

    An object is exchanged wherever it is named, an attribute at one place. Draws follow `rng`.
    """
    tables = vocabulary.tables
    places = [(kind, place) for kind, table in tables.items() for place in table.mentions(text)]
    rng.shuffle(places)
    edits: list[Edit] = []
    changes: list[tuple[Mention, SynonymTable, str]] = []
    for kind, mention in places:
        if len(edits) == num_edits:
            break
        table = tables[kind]
        same = _mentions_to_change(text, kind, mention, table)
        new = _another(text, kind, mention, table, together, rng, [edit.after for edit in edits])
        if new is None or any(_overlap(one, two[0]) for one in same for two in changes):
            continue
        edits.append(Edit(kind=kind, before=mention.name, after=new))
        changes += [(each, table, new) for each in same]
    if not edits:
        return None
    return Rewrite(text=_changed(text, changes), edits=tuple(edits))


def _mentions_to_change(
    text: str, kind: str, mention: Mention, table: SynonymTable
) -> list[Mention]:
    if kind != _OBJECT:
        return [mention]
    return [each for each in table.mentions(text) if each.name == mention.name]


def _another(
    text: str,
    kind: str,
    mention: Mention,
    table: SynonymTable,
    together: Cooccurrence,
    rng: random.Random,
    taken: Sequence[str],
) -> str | None:
    """A name of that kind which the text does not hold, drawn; objects by how often they occur
    beside the others that are named.
    """
    named = set(table.find(text))
    unsaid = sorted(table.names - named - set(taken))
    if not unsaid:
        return None
    others = named - {mention.name}
    weights = [sum(together[name, other] for other in others) for name in unsaid]
    if kind != _OBJECT or not any(weights):
        weights = [1] * len(unsaid)
    return rng.choices(unsaid, weights)[0]


def _overlap(one: Mention, other: Mention) -> bool:
    return one.start < other.end and other.start < one.end


def _changed(text: str, changes: Sequence[tuple[Mention, SynonymTable, str]]) -> str:
    for mention, table, new in sorted(changes, key=lambda change: -change[0].start):
        before, old = text[: mention.start], text[mention.start : mention.end]
        text = _with_article(before, _wording(old, mention.name, new, table)) + text[mention.end :]
    return text


def _wording(old: str, name: str, new: str, table: SynonymTable) -> str:
    """How `new` is said where `name` is said as `old`: a plural stands at its list's same place."""
    place = [normalised(wording) for wording in table.wordings[name]].index(normalised(old))
    wordings = table.wordings[new]
    said = wordings[min(place, len(wordings) - 1)]
    return said[:1].upper() + said[1:] if old[:1].isupper() else said


def _with_article(before: str, word: str) -> str:
    """What stands before the word, and the word: "a circle", but "an oval"."""
    found = _ARTICLE.search(before)
    if found is None:
        return before + word
    article = found[1][0] + ("n" if word[:1].lower() in _VOWELS else "")
    return f"{before[: found.start()]}{article}{found[2]}{word}"
