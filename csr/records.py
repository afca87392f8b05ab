"""Files of JSON records, read as hostile input.

Two shapes, told apart by content, not by name: a JSON list of objects, or JSON Lines, one
object a line. A line that is no JSON spoils itself alone; a list with a syntax error is no
list at all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csr.errors import DataError, shown
from csr.types import SkipReason

MAX_FILE_BYTES = 256 * 1024**2
"""Bytes of one file, which is held in memory; Python's objects take up to 25 times as much.
CSR's 12,856 prompts take 3 MB."""

MAX_TEXT_CHARACTERS = 8192
"""Characters of one text. The policy's context is 2,048 to 4,096 tokens; a longer text
is a mistake in the file."""

_GZIP = b"\x1f\x8b"

IMAGE_MARKER = "<image>"

Record = dict[str, Any]


class BadRecordError(DataError):
    """One record cannot be used; the others of its file may be."""

    def __init__(self, message: str, reason: SkipReason = SkipReason.INVALID_RECORD) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands at one place of a file."""

    position: int
    """The line, or the record's place in the list, from 1."""
    where: str
    """How errors name the place."""
    value: Any
    """The JSON value, or the BadRecordError of a line that is none."""
    fault: BadRecordError | None = None
    """Why it cannot be used, where its reader knows; `value` then only says what it is."""

    def record(self) -> Record:
        """The JSON object. BadRecordError where it is none."""
        if self.fault is not None:
            raise self.fault
        if isinstance(self.value, BadRecordError):
            raise self.value
        if isinstance(self.value, _RepeatedKey):
            raise BadRecordError(
                f"{self.where}: the key {shown(self.value.key)} stands twice, and one of the two "
                "would go unnoticed. Remove one."
            )
        if not isinstance(self.value, dict):
            raise BadRecordError(
                f"{self.where}: a record must be an object, not {type(self.value).__name__}. "
                'Write {"id": ..., "image": ..., "input": ...}.'
            )
        return self.value


def read_entries(path: Path) -> list[Entry]:
    """Every record's JSON value and its place; at least one.

    DataError where the file cannot be read, holds nothing, or is a list with a syntax error.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        values = parse_json(text, str(path))
        entries = [Entry(n, f"{path}, record {n}", value) for n, value in enumerate(values, 1)]
    else:
        lines = enumerate(text.split("\n"), start=1)
        entries = [_line(number, path, line) for number, line in lines if line.strip()]
    if not entries:
        raise DataError(f"{path} is empty. It needs at least one record.")
    return entries


def read_text(path: Path) -> str:
    """The text of a plain UTF-8 file, without a byte order mark."""
    try:
        # A device would be read without end, and a pipe waited for.
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is no file. Name a JSONL or JSON file.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes. Split it.")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. Check its path.") from error
    except UnicodeDecodeError as error:
        if error.object.startswith(_GZIP):
            raise DataError(f"{path} is compressed by gzip. Unpack it first.") from error
        raise DataError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8 JSON.") from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). Check its permissions."
        ) from error


def prompt_id(record: Record, where: str) -> str:
    """The record's `id`, a text or a whole number."""
    value = record.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        record = record | {"id": str(value)}
    return text_field(record, "id", where)


def text_field(record: Record, key: str, where: str) -> str:
    """A text that is there, not blank, not too long, and free of what breaks readers."""
    text = record.get(key)
    if not isinstance(text, str):
        given = "is missing" if key not in record else f"is {type(text).__name__}"
        wanted = "text or a whole number" if key == "id" else "text"
        raise BadRecordError(f"{where}: {key!r} {given}, and must be {wanted}. Mend the record.")
    if not text.strip():
        raise BadRecordError(f"{where}: {key!r} is blank. Fill it in, or remove the record.")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise BadRecordError(
            f"{where}: {key!r} has {len(text):,} characters, and at most "
            f"{MAX_TEXT_CHARACTERS:,} can work. Shorten it."
        )
    if is_unstorable(text):
        raise BadRecordError(
            f"{where}: {key!r} holds a NUL character or half of a surrogate pair, which tokenizers "
            "and tables cannot hold. Remove it."
        )
    return text


def is_unstorable(text: str) -> bool:
    """Whether it holds a NUL, or half of a surrogate pair, which is no character."""
    return "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text)


def question(record: Record, where: str) -> str:
    """The record's `input` without one LLaVA-style image marker at its start or end.

    Templates belong to the sampler, which adds the marker that its model wants; a second
    one would be read as a second image.
    """
    text = text_field(record, "input", where).strip()
    if text.startswith(IMAGE_MARKER):
        text = text.removeprefix(IMAGE_MARKER).strip()
    else:
        text = text.removesuffix(IMAGE_MARKER).strip()
    if IMAGE_MARKER in text:
        raise BadRecordError(
            f"{where}: 'input' has {IMAGE_MARKER!r} inside the text. One marker at the start or "
            "end is understood; remove the others."
        )
    if not text:
        raise BadRecordError(f"{where}: 'input' is only an image marker. Say what is asked.")
    return text


@dataclass(frozen=True, slots=True)
class _RepeatedKey:
    """Stands for an object in which a key has two values, of which one would go unnoticed."""

    key: str


def _line(number: int, path: Path, line: str) -> Entry:
    where = f"{path}, line {number}"
    try:
        return Entry(number, where, parse_json(line, where))
    except DataError as error:
        return Entry(number, where, BadRecordError(str(error), SkipReason.INVALID_JSON))


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text, in which a key that stands twice spoils its own object.

    DataError where it is none.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where}: not valid JSON ({error}). Write a JSON list of records, or one record a "
            "line."
        ) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _RepeatedKey:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            return _RepeatedKey(key)
        found[key] = value
    return found
