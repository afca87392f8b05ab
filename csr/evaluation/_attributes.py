"""Whether captions give present objects their right attributes, such as colour.

CHAIR asks only which objects are named; `csr.truthfulness` judges what is said of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from csr.truthfulness import SentenceVerdict


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


def attribute_ratios(
    caption: Sequence[SentenceVerdict], attributes: Sequence[str]
) -> list[tuple[str, float, float]]:
    """One caption's (figure, right, stated) for each accuracy of `attribute_metrics`."""
    ratios: list[tuple[str, float, float]] = []
    for attribute in attributes:
        stated = [verdict.right[attribute] for verdict in caption if attribute in verdict.right]
        ratios.append((f"{attribute}_accuracy", sum(stated), len(stated)))
    right = sum(verdict.all_right for verdict in caption)
    return [*ratios, ("sentence_accuracy", right, len(caption))]


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
