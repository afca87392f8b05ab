r"""Where a step, which is one sentence, ends. Text only: no tokenizer, no token id.

A sampler asks while the text is still growing, so the rule looks back and never
ahead: whether a mark ends a step depends on what stands before it. Rule "sentence":

- `!`, `?`, a newline and their wide forms (Chinese, Japanese) end a step.
- `.` ends a step unless it follows
  - a digit: "1." opens a list item, "3." may become "3.5". A sentence that does end
    in a number therefore ends at the next mark (a newline, or the next sentence's);
  - a single letter, as in "e.g.", "U.S." and "J. Smith". Not so in "isn't.". The price is
    the same: a sentence that ends in "plan B." or "5 p.m." goes on to the next mark;
  - a title or another word of `ABBREVIATIONS`. "etc." is not among them, since it ends
    sentences more often than not.
- A step holds at least one letter or digit: white space and marks alone join the next.
- Closing quotes, brackets and further marks right behind the end belong to the step
  where they are already there ('."', "?!", "..."), else they open the next one.

What cannot be told by looking back is cut: "example.com" and ".5" after a space.

Rule "period" is the paper's and its code's: any "." ends a step, "3.5" and "Mr." included.
"""

from __future__ import annotations

import re

from csr.protocols import StepRule

SENTENCE_MARKS = (".", "!", "?", "\n", "\u3002", "\uff01", "\uff1f")
ABBREVIATIONS = frozenset(
    {"Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Sr", "Jr", "Mt", "Gen", "Col", "Lt", "Sgt", "Capt"}
    | {"Rev", "Gov", "Sen", "Fig", "Figs", "Eq", "Vol", "Inc", "Ltd", "Corp", "Co", "Ave", "Blvd"}
    | {"Rd", "Jan", "Feb", "Aug", "Sept", "Oct", "Nov", "Dec", "vs", "cf", "al", "approx"}
)
"""Case matters: "Col. Smith" is a title. "No." is not here, being a whole answer."""

_CURLY_APOSTROPHE = "\u2019"
_CLOSING = "\"'\u201d\u00bb)]}*_" + _CURLY_APOSTROPHE
_BEHIND_AN_END = frozenset(_CLOSING + "".join(SENTENCE_MARKS).replace("\n", ""))
_LAST_WORD = re.compile(r"[^\W\d_]+$")
_LOOK_BACK_CHARACTERS = 32
"""Enough for the longest abbreviation and what stands before it."""


def stop_strings(rule: StepRule) -> tuple[str, ...]:
    """The strings at which a step may end; `step_end` decides whether it does."""
    return (".",) if rule == "period" else SENTENCE_MARKS


def step_end(text: str, rule: StepRule, prefix: str = "") -> int | None:
    """Index just behind the first step in `text`, None while the step goes on.

    `text` is what follows `prefix`, the response so far; the prefix is looked at only
    to judge a mark near the start of `text`. Examples: `step_end("At 3.5 m. It", "sentence")`
    is 9, `step_end("Mr.", "sentence")` is None, `step_end("Mr.", "period")` is 3.
    """
    if rule == "period":
        found = text.find(".")
        return None if found < 0 else found + 1
    has_content = False
    for index, character in enumerate(text):
        if character.isalnum():
            has_content = True
        elif has_content and _is_end(text, index, prefix):
            return _behind_closing(text, index + 1)
    return None


def split_steps(text: str, rule: StepRule) -> list[str]:
    """The steps of a whole text, in order; joined they are the text again.

    What is left behind the last end is a step of its own where it holds a letter or a
    digit, else it belongs to the last step. The empty text has no steps.
    """
    steps: list[str] = []
    start = 0
    while (end := step_end(text[start:], rule, text[:start])) is not None:
        steps.append(text[start : start + end])
        start += end
    rest = text[start:]
    if steps and not any(character.isalnum() for character in rest):
        steps[-1] += rest
    elif rest:
        steps.append(rest)
    return steps


def whole_letters(text: str) -> str:
    """`text`, decoded from tokens, without a last letter of which only some tokens are there yet.

    Tokenizers write such bytes as U+FFFD. The step that completes the letter holds it.
    """
    return text.rstrip("\N{REPLACEMENT CHARACTER}")


def _is_end(text: str, index: int, prefix: str) -> bool:
    mark = text[index]
    if mark != ".":
        return mark in SENTENCE_MARKS
    before = (prefix[-_LOOK_BACK_CHARACTERS:] + text[:index])[-_LOOK_BACK_CHARACTERS:]
    if before[-1:].isdigit():
        return False
    found = _LAST_WORD.search(before)
    if found is None:
        return True
    word = found.group()
    return not (word in ABBREVIATIONS or _is_initial(word, before[: found.start()]))


def _is_initial(word: str, before: str) -> bool:
    """A single letter with case ("U", "e"), but not the end of "isn't" or "cat's"."""
    if len(word) != 1 or word.lower() == word.upper():
        return False
    return not (before[-1:] in ("'", _CURLY_APOSTROPHE) and before[-2:-1].isalpha())


def _behind_closing(text: str, end: int) -> int:
    if text[end - 1] == "\n":
        return end
    while end < len(text) and text[end] in _BEHIND_AN_END:
        end += 1
    return end
