"""Singular forms of a closed set of words.

Not of any word: a rule that meets every word of a text makes "bu" of "bus" (pattern.en, which the
authors of CHAIR used, and inflect) and "hi" of "his". Here the plurals of the words that count are
made instead, and what is the plural of none of them stays as it is. Too many forms do no harm:
"cupes" is met in no text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_IRREGULAR = {
    "person": "people",
    "child": "children",
    "grandchild": "grandchildren",
    "foot": "feet",
    "tooth": "teeth",
    "goose": "geese",
    "mouse": "mice",
    "ox": "oxen",
}
_HISSING = ("s", "x", "z", "ch", "sh")
_VOWELS = "aeiou"


def singular_forms(words: Iterable[str]) -> dict[str, str]:
    """Plural -> its singular, of single lower-case words. A word that is listed itself is no
    plural: "skis" and "people" stay where both are listed.
    """
    known = set(words)
    forms = {plural: word for word in sorted(known) for plural in _plurals(word)}
    return {plural: word for plural, word in forms.items() if plural not in known}


def _plurals(word: str) -> Iterator[str]:
    if word in _IRREGULAR:
        yield _IRREGULAR[word]
    elif word.endswith("man"):
        yield f"{word[:-3]}men"
    if len(word) < 2:
        return
    if word.endswith(_HISSING):
        yield f"{word}es"
        return
    yield f"{word}s"
    if word.endswith("o"):
        yield f"{word}es"
    if word.endswith("y") and word[-2] not in _VOWELS:
        yield f"{word[:-1]}ies"
    if word.endswith("f"):
        yield f"{word[:-1]}ves"
    if word.endswith("fe"):
        yield f"{word[:-2]}ves"
