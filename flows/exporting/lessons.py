"""What an iteration's trainer read: pairs and demonstrations, as an export takes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from csr.errors import DataError
from csr.types import Demonstration, FinishReason, PreferencePair, SkipReason
from storage.attempt import AttemptDir
from storage.critique import demonstrations_from_table
from storage.rows import pairs_from_table
from storage.tables import read_table, table_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """The rows to export, in stored order."""

    pairs: tuple[PreferencePair, ...]
    demonstrations: tuple[Demonstration, ...]
    left_out: dict[str, int] = field(default_factory=dict)
    """Reason -> rows."""

    @property
    def num_rows(self) -> int:
        """Pairs and demonstrations."""
        return len(self.pairs) + len(self.demonstrations)

    @property
    def num_cut(self) -> int:
        """Sides of pairs that did not end by themselves: other trainers would add an end."""
        sides = [side for pair in self.pairs for side in (pair.chosen, pair.rejected)]
        return sum(side.finish_reason is not FinishReason.EOS for side in sides)

    @property
    def num_other_images(self) -> int:
        """Pairs whose rejected side was sampled from another image."""
        return sum(pair.rejected_image is not None for pair in self.pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One file of rows that a format wrote."""

    kind: str
    """"pairs" or "demonstrations"."""
    path: Path
    num_rows: int


def read_lessons(attempt: AttemptDir) -> Lessons:
    """DataError where pairing made nothing that could be exported."""
    pairs: list[PreferencePair] = []
    demonstrations: list[Demonstration] = []
    if table_files(attempt.pairs):
        pairs = pairs_from_table(read_table(attempt.pairs, "pairs"))
    if table_files(attempt.demonstrations):
        table = read_table(attempt.demonstrations, "demonstrations")
        demonstrations = demonstrations_from_table(table)
    if not pairs and not demonstrations:
        raise DataError(
            f"{attempt.id} has neither pairs nor demonstrations, so there is nothing to export. "
            f"`csr show {attempt.id}` counts why its prompts yielded none."
        )
    return Lessons(pairs=tuple(pairs), demonstrations=tuple(demonstrations))


def usable(lessons: Lessons, markers: Sequence[str]) -> Lessons:
    """The rows that a format can hold; those it cannot are counted in `left_out`.

    `media_marker`: a text holds what the format's trainer takes for an image. `equal_text`: the
    sides of a pair differ in their token ids alone, and texts are what is exported.
    DataError where none remains.
    """
    left_out: Counter[str] = Counter()
    pairs, demonstrations = [], []
    for pair in lessons.pairs:
        texts = (pair.prompt.text, pair.chosen.text, pair.rejected.text)
        if pair.chosen.text.strip() == pair.rejected.text.strip():
            left_out[SkipReason.EQUAL_TEXT.value] += 1
        elif _marked(texts, markers):
            left_out[SkipReason.MEDIA_MARKER.value] += 1
        else:
            pairs.append(pair)
    for each in lessons.demonstrations:
        if _marked((each.prompt.text, each.text), markers):
            left_out[SkipReason.MEDIA_MARKER.value] += 1
        else:
            demonstrations.append(each)
    if not pairs and not demonstrations:
        raise DataError(
            f"No row can be exported in this format: {dict(left_out)}. With --format trl, texts "
            f"may hold {', '.join(markers)}."
        )
    return Lessons(
        pairs=tuple(pairs), demonstrations=tuple(demonstrations), left_out=dict(left_out)
    )


def _marked(texts: Iterable[str], markers: Sequence[str]) -> bool:
    return any(marker in text for text in texts for marker in markers)
