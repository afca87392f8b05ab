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
from csr.vocabulary import Mention

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
        return [mention.name for mention in self.mentions(text)]

    def mentions(self, text: str) -> list[Mention]:
        """The same with their places in `text`."""
        found = [
            Mention(
                name=self._singular.get(match[0], match[0]), start=match.start(), end=match.end()
            )
            for match in _WORD.finditer(text)
        ]
        return [mention for mention in found if mention.name in self._vocabulary]

    def hallucinated(self, text: str, present: Sequence[str]) -> list[Mention]:
        """The mentions that `count` counts as hallucinated."""
        return [m for m in self.mentions(text) if self._is_hallucinated(m.name, present)]

    def count(self, text: str, present: Sequence[str], expected: Sequence[str]) -> DescribedObjects:
        """`present` and `expected` are an annotation's `truth` and `hallu`."""
        words = self.find(text)
        hallucinated = [word for word in words if self._is_hallucinated(word, present)]
        others = [word for word in words if word not in self._files.safe_words]
        covered = {self._stands_for(word, present) for word in others} - {None}
        imagined = {self._stands_for(word, expected) for word in hallucinated} - {None}
        return DescribedObjects(
            num_mentions=len(words),
            num_hallucinated=len(hallucinated),
            num_present=len(present),
            num_covered=len(covered),
            num_expected=len(expected),
            num_imagined=len(imagined),
        )

    def _is_hallucinated(self, word: str, present: Sequence[str]) -> bool:
        return word not in self._files.safe_words and self._stands_for(word, present) is None

    def _stands_for(self, word: str, objects: Sequence[str]) -> int | None:
        """The place of the object that a word stands for: the first under which it is listed,
        before one that it names itself, as in the authors' script.
        """
        for place, name in enumerate(objects):
            if word in self._files.associations.get(name, ()):
                return place
        return objects.index(word) if word in objects else None
