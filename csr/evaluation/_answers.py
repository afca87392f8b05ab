"""How a yes or a no is read from free text: the rules that papers and their code go by."""

from __future__ import annotations

import re
from typing import Literal

Answer = Literal["yes", "no"]
AnswerRule = Literal["official", "robust", "substring"]

LABELS: tuple[Answer, ...] = ("yes", "no")
_NEGATIVE_WORDS = frozenset({"no", "not", "none", "cannot", "never", "without"})


def official_answer(text: str) -> Answer:
    """POPE's authors' rule: "no" where the first sentence holds No, no or not, else "yes".

    It knows no other spelling ("NO", "isn't") and takes silence for "yes".
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def robust_answer(text: str) -> Answer | None:
    """The first yes or no word of the text in any case; else "no" where it negates.

    None where the text does neither, e.g. "A dog." or nothing at all.
    """
    words = re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower().replace("\u2019", "'"))
    for word in words:
        if word == "yes":
            return "yes"
        if word == "no":
            return "no"
    negates = any(word in _NEGATIVE_WORDS or word.endswith("n't") for word in words)
    return "no" if negates else None


def substring_answer(text: str, label: Answer) -> Answer:
    """The rule of VCD's evaluation (arXiv:2311.16922, its code): right where the text holds the
    label's letters anywhere, whatever else it says.

    It favours the policy: "I do not know" holds "no", and "Yes or no" is right for either label.
    """
    other: Answer = "no" if label == "yes" else "yes"
    return label if label in text.lower() else other


def read_answer(rule: AnswerRule, text: str, label: Answer) -> Answer | None:
    """The answer by a rule; the label counts for `substring` alone."""
    if rule == "official":
        return official_answer(text)
    return robust_answer(text) if rule == "robust" else substring_answer(text, label)
