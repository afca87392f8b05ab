"""Which generated text is fit to be trained on. Words and characters only."""

from __future__ import annotations

import re

REPETITION_WORDS = 4

MIN_STEP_CHARACTERS = 4

_FOREIGN_SCRIPTS = re.compile(
    "["
    "\u0400-\u052f"  # Cyrillic
    "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"  # Hangul
    "\u3040-\u30ff"  # kana
    "\u2600-\u27bf\U0001f300-\U0001faff"  # pictographs
    "]"
)
_HARD_SPACES = re.compile(r"&nbsp;\s*&nbsp;")
_REPEATED_WORD = re.compile(r"\b(\w+)(?:\W+\1\b){5}")
_REPEATED_CHARACTER = re.compile(r"(\S)(?:\s*\1){10}")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9\s.,;:!?'\"()\[\]/&%$#@*+=<>_-]")
_MAX_NEWLINES = 5


def is_clean_step(text: str) -> bool:
    """Whether a step passes the cleaning rules of the released CSR code, in our own wording.

    Refused: Hangul, kana, Cyrillic or pictographs; two "&nbsp;" in a row; a word six times in
    a row; a character eleven times in a row (spaces allowed between); more than five newlines;
    fewer than four plain characters. A bare end of response is no text and passes.
    """
    if not text.strip():
        return True
    junk = (_FOREIGN_SCRIPTS, _HARD_SPACES, _REPEATED_WORD, _REPEATED_CHARACTER)
    if any(pattern.search(text) for pattern in junk) or text.count("\n") > _MAX_NEWLINES:
        return False
    return len(_NOT_PLAIN.sub("", text).strip()) >= MIN_STEP_CHARACTERS


def repetition(text: str) -> float:
    """Share of the text's runs of four words that occurred earlier in it, in [0, 1).

    0 for fewer than two runs. A sentence said twice gives a little under 0.5.
    """
    words = re.findall(r"\w+", text.lower())
    runs = [tuple(words[i : i + REPETITION_WORDS]) for i in range(len(words) - 3)]
    return 1.0 - len(set(runs)) / len(runs) if runs else 0.0
