"""Whether a sentence is true of an image whose objects are known.

A sentence is judged where it names exactly one object; with several there is no telling whose
attribute is meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from csr.vocabulary import SynonymTable

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
