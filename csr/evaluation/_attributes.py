"""Whether captions give present objects their right attributes, such as colour.

CHAIR asks only which objects are named. A sentence is judged here where it names
exactly one object; with several there is no telling whose attribute is meant.
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


def attribute_metrics(
    captions: Sequence[Sequence[SentenceVerdict]], attributes: Sequence[str]
) -> dict[str, float]:
    """Figures over captions, each given as its sentences' verdicts, as fractions.

    - `<attribute>_accuracy`: right / stated, over sentences that name one present object.
    - `sentence_accuracy`: sentences with a present object and all attributes right, over
      all sentences; one that names no object, or several, is not right.
    - `repeated_object_share`: objects named by an earlier sentence of the same caption,
      over objects named.

    A ratio with nothing to count is 0.0.
    """
    sentences = [verdict for caption in captions for verdict in caption]
    metrics = {}
    for attribute in attributes:
        stated = [v.right[attribute] for v in sentences if attribute in v.right]
        metrics[f"{attribute}_accuracy"] = _share(stated)
    metrics["sentence_accuracy"] = _share([verdict.all_right for verdict in sentences])
    metrics["repeated_object_share"] = _share(
        [repeated for caption in captions for repeated in _repeats(caption)]
    )
    metrics["num_multi_object_sentences"] = float(sum(len(v.objects) > 1 for v in sentences))
    return metrics


def _repeats(caption: Sequence[SentenceVerdict]) -> list[bool]:
    """For each object a sentence names, whether an earlier sentence named it."""
    seen: set[str] = set()
    repeated: list[bool] = []
    for verdict in caption:
        repeated += [name in seen for name in verdict.objects]
        seen.update(verdict.objects)
    return repeated


def _share(cases: Sequence[bool]) -> float:
    return sum(cases) / len(cases) if cases else 0.0
