"""ROUGE-L: how much of a reference a text says, in the same order (Lin 2004, section 3)."""

from __future__ import annotations

import re
from collections.abc import Sequence

BETA = 1.2
"""Weight of recall against precision, as in the caption-evaluation code that ILLUME scores with."""


def rouge_l(text: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words, in [0, 1].

    `F = (1 + BETA^2) P R / (R + BETA^2 P)`. Words are compared in lower case, without
    punctuation.
    """
    said, wanted = _words(text), _words(reference)
    common = _longest_common_subsequence(said, wanted)
    if common == 0:
        return 0.0
    precision, recall = common / len(said), common / len(wanted)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _longest_common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Its length, by rows of the usual table."""
    before = [0] * (len(right) + 1)
    for word in left:
        row = [0]
        for place, other in enumerate(right):
            matched = before[place] + 1 if word == other else 0
            row.append(max(matched, row[place], before[place + 1]))
        before = row
    return before[-1]
