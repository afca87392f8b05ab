"""AMBER's figures: ratios over responses, with the starts of the authors' counters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from csr.evaluation._amber_words import DescribedObjects
from csr.evaluation._answers import Answer
from csr.outcomes import Outcome, by_metric

Ratio = tuple[str, float, float]

_COUNTERS = {
    "amber_chair": ("chair_score", "chair_num"),
    "amber_cover": ("safe_cover_score", "safe_cover_num"),
    "amber_cog": ("hallu_cover_score", "hallu_cover_num"),
    "amber_hal": ("", "non_hallu_num"),
}
"""Figure -> the counters of `metrics.txt` above and below the bar."""
_QUESTION_COUNTERS = {
    "": "", "existence": "ha_", "state": "as_", "number": "an_", "action": "aa_",
    "relation": "asso_",
}  # fmt: skip
_OF_KIND = {
    "accuracy": ("qa_correct_score", "qa_correct_num"),
    "precision": ("qa_ans_no_score", "qa_ans_no_num"),
    "recall": ("qa_no_score", "qa_no_num"),
}


def description_ratios(counts: DescribedObjects) -> list[Ratio]:
    """One description's part in CHAIR, Cover, Hal and Cog (arXiv:2311.07397, section 3.3)."""
    return [
        ("amber_chair", counts.num_hallucinated, counts.num_mentions),
        ("amber_cover", counts.num_covered, counts.num_present),
        ("amber_hal", counts.num_hallucinated > 0, 1),
        ("amber_cog", counts.num_imagined, counts.num_expected),
    ]


def question_ratios(truth: Answer, answer: Answer | None, groups: Sequence[str]) -> list[Ratio]:
    """One answer's part in the figures over all questions, and over each of its groups.

    "no" is the positive class: an answer "no" to what is not there is found hallucination avoided.
    """
    was, said = truth == "no", answer == "no"
    both = was and said
    return [
        ratio
        for prefix in ("amber", *(f"amber_{group}" for group in groups))
        for ratio in (
            (f"{prefix}_accuracy", truth == answer, 1),
            (f"{prefix}_precision", both, said),
            (f"{prefix}_recall", both, was),
            (f"{prefix}_f1", 2 * both, said + was),
        )
    ]


def figures_of(outcomes: Sequence[Outcome], start: Mapping[str, float]) -> dict[str, float]:
    """`amber_chair`, `amber_cover`, `amber_hal`, `amber_cog` and, over all questions and over those
    of `existence`, `attribute` (`state`, `number`, `action`) and `relation`, `..._accuracy`,
    `..._precision`, `..._recall` and `..._f1`, as fractions.

    Counters start where `metrics.txt` says. F1 is of the counts; the authors' script makes it of
    rounded percentages, and adds 0.0001 (0.001 for existence) below the bar.
    """
    metrics = {}
    for name, group in by_metric(outcomes).items():
        above, below = _starts(name, start)
        top = above + sum(outcome.numerator for outcome in group)
        bottom = below + sum(outcome.denominator for outcome in group)
        metrics[name] = top / bottom if bottom else 0.0
    return metrics


def _starts(name: str, start: Mapping[str, float]) -> tuple[float, float]:
    if name in _COUNTERS:
        above, below = _COUNTERS[name]
        return start.get(above, 0.0), start.get(below, 0.0)
    group, _, figure = name.removeprefix("amber").removeprefix("_").rpartition("_")
    if figure not in _OF_KIND or group not in _QUESTION_COUNTERS:
        return 0.0, 0.0
    above, below = (_QUESTION_COUNTERS[group] + counter for counter in _OF_KIND[figure])
    return start.get(above, 0.0), start.get(below, 0.0)
