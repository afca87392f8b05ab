"""POPE's figures from its labels and the answers that were read."""

from __future__ import annotations

from collections.abc import Sequence

from csr.evaluation._answers import Answer
from csr.evaluation._pope_files import SPLITS
from csr.outcomes import Outcome, outcomes_of
from csr.records import Record


def split_metrics(labels: Sequence[Answer], answers: Sequence[Answer | None]) -> dict[str, float]:
    """Figures of one split as fractions; "yes" is the positive class.

    An answer of None counts as wrong and not as a yes. `yes_ratio` is over answers,
    not labels. A ratio with nothing to count is 0.0.
    """
    assert len(labels) == len(answers) > 0, "one answer a label"
    pairs = list(zip(labels, answers, strict=True))
    true_yes = sum(label == answer == "yes" for label, answer in pairs)
    said_yes = sum(answer == "yes" for answer in answers)
    was_yes = sum(label == "yes" for label in labels)
    return {
        "accuracy": sum(label == answer for label, answer in pairs) / len(pairs),
        "precision": true_yes / said_yes if said_yes else 0.0,
        "recall": true_yes / was_yes if was_yes else 0.0,
        "f1": 2 * true_yes / (said_yes + was_yes) if said_yes + was_yes else 0.0,
        "yes_ratio": said_yes / len(answers),
    }


def pope_metrics(
    splits: Sequence[str],
    labels: Sequence[Answer],
    answers: Sequence[Answer | None],
    prefix: str = "pope",
) -> dict[str, float]:
    """`pope_<split>_<figure>` of every split that occurs, and `pope_<figure>`, their mean."""
    metrics: dict[str, float] = {}
    figures_of: list[dict[str, float]] = []
    for split in (name for name in SPLITS if name in splits):
        rows = [i for i, name in enumerate(splits) if name == split]
        figures = split_metrics([labels[i] for i in rows], [answers[i] for i in rows])
        metrics |= {f"{prefix}_{split}_{name}": value for name, value in figures.items()}
        figures_of.append(figures)
    for name in figures_of[0]:
        metrics[f"{prefix}_{name}"] = sum(f[name] for f in figures_of) / len(figures_of)
    return metrics


def answer_outcomes(record: Record, answer: Answer | None, prefix: str) -> list[Outcome]:
    """Accuracy, precision, recall, F1 and yes-ratio as ratios of sums; see `split_metrics`."""
    label, split = record["label"], record["split"]
    was, said = label == "yes", answer == "yes"
    both = was and said
    ratios = {
        "accuracy": (label == answer, 1),
        "precision": (both, said),
        "recall": (both, was),
        "f1": (2 * both, said + was),
        "yes_ratio": (said, 1),
    }
    name, image = record["id"], record["image"]
    of_split = [(f"{prefix}_{split}_{key}", *ratio) for key, ratio in ratios.items()]
    of_all = [(f"{prefix}_{key}", *ratio) for key, ratio in ratios.items()]
    return [*outcomes_of(name, image, of_split), *outcomes_of(name, image, of_all, split)]
