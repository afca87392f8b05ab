"""Whether a sentence is true of an image whose objects are known, and which words are not.

A sentence is judged where it names exactly one object; with several there is no telling whose
attribute is meant.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from csr.steps import split_steps
from csr.vocabulary import Mention, SynonymTable, Vocabulary

SceneObject = Mapping[str, str]
"""`{"name": "circle", "colour": "red", "position": "top left"}`, canonical names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceVerdict:
    """What one sentence says of the one object it names, against the image.

    Example: "A red circle." of an image with a blue circle gives `SentenceVerdict(
    objects=("circle",), present=True, right={"colour": False}, all_right=False)`.
    """

    objects: tuple[str, ...]
    """Distinct objects named, in order."""
    present: bool
    """Whether exactly one object is named and the image shows it."""
    right: dict[str, bool]
    """Attribute -> whether it is right; only attributes that the sentence states."""
    all_right: bool
    """Present, and every attribute is stated and right, all of the same instance."""


def judge_sentence(
    sentence: str,
    scene: Sequence[SceneObject],
    objects: SynonymTable,
    attributes: Mapping[str, SynonymTable],
) -> SentenceVerdict:
    """Judge one sentence. Of several instances any may be the one that is meant.

    A sentence that states two values of one attribute is wrong in it.
    """
    named = tuple(dict.fromkeys(objects.find(sentence)))
    instances = [thing for thing in scene if named == (thing["name"],)]
    stated = {attribute: set(table.find(sentence)) for attribute, table in attributes.items()}
    return SentenceVerdict(
        objects=named,
        present=bool(instances),
        right={
            attribute: any(values == {thing[attribute]} for thing in instances)
            for attribute, values in stated.items()
            if values and instances
        },
        all_right=any(
            all(values == {thing[attribute]} for attribute, values in stated.items())
            for thing in instances
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseMention:
    """Words that the image contradicts: `text[start:end]`.

    Example: "A red circle." of an image with a blue circle holds
    `FalseMention(kind="colour", name="red", start=2, end=5)`
    """

    kind: str
    """ "object" for an object that is absent, else the attribute that is wrong."""
    name: str
    start: int
    end: int


def false_mentions(
    text: str, scene: Sequence[SceneObject], vocabulary: Vocabulary
) -> list[FalseMention]:
    """Every absent object that a text names, and every attribute that is wrong, in order.

    Objects are marked as CHAIR counts them, wherever they stand; attributes where
    `judge_sentence` can tell whose they are. No two overlap.
    """
    found = absent_objects(vocabulary.objects.mentions(text), {thing["name"] for thing in scene})
    start = 0
    for sentence in split_steps(text, "sentence"):
        found += _wrong_attributes(sentence, start, scene, vocabulary)
        start += len(sentence)
    apart: list[FalseMention] = []
    for mention in sorted(found, key=lambda each: each.start):
        if not apart or mention.start >= apart[-1].end:
            apart.append(mention)
    return apart


def absent_objects(mentions: Sequence[Mention], present: Collection[str]) -> list[FalseMention]:
    """Those of the mentions whose object is not `present`."""
    return [
        FalseMention(kind="object", name=each.name, start=each.start, end=each.end)
        for each in mentions
        if each.name not in present
    ]


def _wrong_attributes(
    sentence: str, start: int, scene: Sequence[SceneObject], vocabulary: Vocabulary
) -> list[FalseMention]:
    """The sentence stands at `start` of its text."""
    verdict = judge_sentence(sentence, scene, vocabulary.objects, vocabulary.attributes)
    return [
        FalseMention(kind=kind, name=each.name, start=start + each.start, end=start + each.end)
        for kind, is_right in verdict.right.items()
        if not is_right
        for each in vocabulary.attributes[kind].mentions(sentence)
    ]
