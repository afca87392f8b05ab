"""CHAIR: how often captions name objects that are not in the image.

Rohrbach et al. 2018, "Object Hallucination in Image Captioning". CHAIR falls when a
caption merely says less, so recall is computed beside it and must be reported too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from csr.outcomes import Outcome, outcomes_of
from csr.vocabulary import SynonymTable


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionObjects:
    """One caption's object mentions against what its image shows."""

    num_mentions: int
    num_hallucinated: int
    """Mentions of absent objects."""
    num_present: int
    """Distinct objects in the image."""
    num_recalled: int
    """Distinct objects of the image that the caption names."""


def count_objects(
    caption: str,
    present: Collection[str],
    objects: SynonymTable,
    *,
    unique_numerator: bool = False,
) -> CaptionObjects:
    """Count mentions in one caption; `present` holds canonical names.

    `unique_numerator` counts each hallucinated object once a caption, but still every
    mention in `num_mentions`. Some later codebases do this; their CHAIR_i is lower.
    """
    return compare_mentions(objects.find(caption), present, unique_numerator=unique_numerator)


def compare_mentions(
    mentions: Sequence[str], present: Collection[str], *, unique_numerator: bool = False
) -> CaptionObjects:
    """As `count_objects`, for canonical names that are found already."""
    hallucinated = [name for name in mentions if name not in present]
    return CaptionObjects(
        num_mentions=len(mentions),
        num_hallucinated=len(set(hallucinated) if unique_numerator else hallucinated),
        num_present=len(set(present)),
        num_recalled=len(set(mentions) & set(present)),
    )


def chair_metrics(captions: Sequence[CaptionObjects]) -> dict[str, float]:
    """CHAIR over a corpus, as fractions in [0, 1].

    - `chair_s`: captions with at least one hallucinated mention / captions, the empty
      ones included.
    - `chair_i`: hallucinated mentions / mentions, over the whole corpus. 0.0 where
      nothing is mentioned; `recall` is 0.0 then as well.
    - `recall`: objects named / objects present, over the whole corpus.
    """
    assert captions, "a benchmark has at least one response"
    num_wrong = sum(caption.num_hallucinated > 0 for caption in captions)
    mentions = [caption.num_mentions for caption in captions]
    hallucinated = [caption.num_hallucinated for caption in captions]
    present = [caption.num_present for caption in captions]
    recalled = [caption.num_recalled for caption in captions]
    return {
        "chair_s": num_wrong / len(captions),
        "chair_i": _ratio(sum(hallucinated), sum(mentions)),
        "recall": _ratio(sum(recalled), sum(present)),
        "num_object_mentions": float(sum(mentions)),
        "num_hallucinated_mentions": float(sum(hallucinated)),
    }


def chair_outcomes(prompt_id: str, image: str, caption: CaptionObjects) -> list[Outcome]:
    """One caption's part in `chair_s`, `chair_i` and `recall`."""
    ratios = [
        ("chair_s", caption.num_hallucinated > 0, 1),
        ("chair_i", caption.num_hallucinated, caption.num_mentions),
        ("recall", caption.num_recalled, caption.num_present),
    ]
    return outcomes_of(prompt_id, image, ratios)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
