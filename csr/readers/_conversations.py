"""Conversations as LLaVA has them: `[{"from": "human", "value": ...}, {"from": "gpt", ...}]`.

What is asked first is a prompt, and what is answered first its reference. A later question stands
on what was said before it, which no sampler here is told, so that it would be answered out of its
context: each is left out and counted. Nothing is made up in its place: turns are not joined, nor
is a question taken for one that stands alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from csr.prompt_files import EmbeddedImage
from csr.records import BadRecordError, Entry, Record
from csr.types import SkipReason


class Conversations:
    """Makes entries of records with `id`, `image` and `conversations`."""

    def __init__(self) -> None:
        self._seen: Counter[object] = Counter()

    def entries(self, position: int, where: str, record: Record) -> Iterator[Entry]:
        """The entry of the first question, and one for each that is left out behind it.

        LLaVA's ids name images, so that a second conversation about one repeats it: the n-th is
        called `<id>@<n>`.
        """
        value: Record = {key: record[key] for key in ("id", "image", "dataset") if key in record}
        if "id" in value:
            value["id"] = self._own_id(value["id"])
        try:
            turns = _checked(record.get("conversations"), where)
        except BadRecordError as error:
            yield Entry(position, where, value, error)
            return
        value["input"] = turns[0].get("value")
        if len(turns) > 1 and turns[1].get("from") == "gpt":
            value["reference"] = turns[1].get("value")
        yield Entry(position, where, value, no_image(value.get("image"), where))
        for number, turn in enumerate(turns[1:], start=2):
            if isinstance(turn, dict) and turn.get("from") == "human":
                yield Entry(position, where, value, _later(f"{where}, turn {number}"))

    def _own_id(self, given: Any) -> Any:
        if isinstance(given, bool) or not isinstance(given, str | int):
            return given  # told as a fault when the record is checked
        self._seen[str(given)] += 1
        count = self._seen[str(given)]
        return given if count == 1 else f"{given}@{count}"


def no_image(image: str | EmbeddedImage | None, where: str) -> BadRecordError | None:
    """The fault of a record of text alone, as such data have among others."""
    if image is not None:
        return None
    return BadRecordError(f"{where}: it has no image, so it is left out.", SkipReason.NO_IMAGE)


def _checked(turns: Any, where: str) -> list[dict[str, Any]]:
    """The turns, of which the first is a question. BadRecordError where it is none."""
    if not isinstance(turns, list) or not turns:
        raise BadRecordError(
            f"{where}: 'conversations' must be a list of turns. Write "
            '[{"from": "human", "value": ...}, {"from": "gpt", "value": ...}].'
        )
    for turn in turns[:2]:
        if not isinstance(turn, dict):
            raise BadRecordError(
                f"{where}: a turn must be an object, with each key once. Write "
                '{"from": "human", "value": ...}.'
            )
    if turns[0].get("from") != "human":
        raise BadRecordError(
            f'{where}: the first turn is not from "human", so that it is unknown what is asked. '
            "Put the question first, or remove the record."
        )
    return turns


def _later(where: str) -> BadRecordError:
    return BadRecordError(
        f"{where}: what is asked later stands on the turns before it, which no sampler is told; "
        "the first question alone is a prompt.",
        SkipReason.LATER_TURN,
    )
