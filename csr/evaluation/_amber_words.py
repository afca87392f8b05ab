"""Which of AMBER's objects a description names, and which of them are not there.

The authors' script takes the nouns of a description by NLTK's tagger and WordNet's lemmas, and lets
a word stand for an object where spaCy's word vectors are alike. None of these models is here, so
every word is taken that is in the benchmark's own lists, singular or plural, and it stands for the
objects under which it is listed. As there, letters count as they are written: "Sky" at the
beginning of a sentence is no "sky". docs/evaluation.md says how the figures differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from csr.evaluation._amber_files import AmberFiles
from csr.evaluation._plurals import singular_forms

_NO_PLURALS = ("leaves",)
""""leave" is in the lists, but WordNet's lemma of "leaves" is "leaf", which is not."""

_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedObjects:
    """One description's counts, by the names of the authors' script."""

    num_mentions: int
    """Listed words in the text, repetitions kept (`chair_num`)."""
    num_hallucinated: int
    """Those that stand for nothing the image shows, and are not safe (`chair_score`)."""
    num_present: int
    """Objects that the image shows (`safe_cover_num`)."""
    num_covered: int
    """Of these, the named ones (`safe_cover_score`)."""
    num_expected: int
    """Absent objects that people would expect (`hallu_cover_num`)."""
    num_imagined: int
    """Of these, the named ones (`hallu_cover_score`)."""


class AmberWords:
    """Counts the objects of descriptions against one image's annotation."""

    def __init__(self, files: AmberFiles) -> None:
        self._files = files
        self._vocabulary = files.vocabulary
        forms = singular_forms(self._vocabulary)
        self._singular = {form: word for form, word in forms.items() if form not in _NO_PLURALS}

    def find(self, text: str) -> list[str]:
        """The listed words of a text in order, in the singular, repetitions kept."""
        words = (match[0] for match in _WORD.finditer(text))
        singular = (self._singular.get(word, word) for word in words)
        return [word for word in singular if word in self._vocabulary]

    def count(self, text: str, present: Sequence[str], expected: Sequence[str]) -> DescribedObjects:
        """`present` and `expected` are an annotation's `truth` and `hallu`."""
        covered: set[int] = set()
        imagined: set[int] = set()
        num_hallucinated = 0
        words = self.find(text)
        for word in words:
            if word in self._files.safe_words:
                continue
            place = self._stands_for(word, present)
            if place is not None:
                covered.add(place)
                continue
            place = self._stands_for(word, expected)
            if place is not None:
                imagined.add(place)
            num_hallucinated += 1
        return DescribedObjects(
            num_mentions=len(words),
            num_hallucinated=num_hallucinated,
            num_present=len(present),
            num_covered=len(covered),
            num_expected=len(expected),
            num_imagined=len(imagined),
        )

    def _stands_for(self, word: str, objects: Sequence[str]) -> int | None:
        """The place of the object that a word stands for: the first under which it is listed,
        before one that it names itself, as in the authors' script.
        """
        for place, name in enumerate(objects):
            if word in self._files.associations.get(name, ()):
                return place
        return objects.index(word) if word in objects else None
