"""Reads what benchmarks are made of: prompts with ground truth, and vocabularies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from csr.errors import DataError
from csr.images import image_ref
from csr.prompts import IMAGE_MARKER
from csr.types import Prompt

Record = dict[str, Any]
Wordings = dict[str, list[str]]

_PROMPT_KEYS = ("id", "image", "input")


def read_records(path: Path) -> list[Record]:
    """The objects of a JSONL file or JSON list, each with text under `id`, `image`, `input`.

    DataError names the file and the record that is not such an object, a second record
    of one id, or a file without records.
    """
    records: list[Record] = []
    first_of: dict[str, str] = {}
    for value, where in _values(path):
        record = _checked_record(value, where)
        if record["id"] in first_of:
            raise DataError(
                f"{where}: the id {record['id']!r} was used in {first_of[record['id']]} already. "
                "Give each record its own id."
            )
        first_of[record["id"]] = where
        records.append(record)
    if not records:
        raise DataError(f"{path} holds no records. Give a JSONL file with one prompt a line.")
    return records


def build_prompts(records: Sequence[Record], images: Path, dataset: str) -> list[Prompt]:
    """One prompt a record. Each distinct image is checked once; DataError names a bad one."""
    refs = {name: image_ref(name, root=images) for name in {r["image"]: None for r in records}}
    return [
        Prompt(
            prompt_id=record["id"],
            text=record["input"],
            image=refs[record["image"]],
            dataset=dataset,
        )
        for record in records
    ]


def read_vocabulary(path: Path) -> tuple[Wordings, dict[str, Wordings]]:
    """Wordings of objects, and of each attribute's values, from a JSON file.

    `{"objects": {"circle": ["circle", "circles"]}, "attributes": {"colour": {"red":
    ["red"]}}}`; `attributes` may be absent. DataError where the shape is another.
    """
    try:
        document = json.loads(_read_text(path))
    except ValueError as error:
        raise DataError(f"The vocabulary {path} is not JSON ({error}).") from None
    attributes = document.get("attributes", {}) if isinstance(document, dict) else None
    if not isinstance(attributes, dict) or not document.get("objects"):
        raise DataError(
            f'The vocabulary {path} is not of the form {{"objects": {{name: [wordings]}}, '
            '"attributes": {attribute: {value: [wordings]}}}.'
        )
    for where, wordings in {"objects": document["objects"], **attributes}.items():
        _check_wordings(wordings, f"The vocabulary {path}, under {where!r}")
    return document["objects"], attributes


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"There is no file {path}. Check the benchmark's paths.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error}).") from None


def _values(path: Path) -> Iterator[tuple[Any, str]]:
    """Each record's JSON value, and its place for errors."""
    text = _read_text(path)
    if text.lstrip().startswith("["):
        for number, value in enumerate(_parse(text, str(path)), start=1):
            yield value, f"{path}, record {number}"
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield _parse(line, where), where


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}). Write one JSON object a line.") from None


def _checked_record(record: Any, where: str) -> Record:
    """With a text id, and without an image marker around `input`: samplers add their own."""
    if not isinstance(record, dict):
        raise DataError(f"{where}: not a JSON object. Write one JSON object a line.")
    if type(record.get("id")) is int:
        record["id"] = str(record["id"])
    if isinstance(record.get("input"), str):
        text = record["input"].strip().removeprefix(IMAGE_MARKER).removesuffix(IMAGE_MARKER)
        record["input"] = text.strip()
    for key in _PROMPT_KEYS:
        if not isinstance(record.get(key), str) or not record[key]:
            raise DataError(
                f"{where}: {key!r} is {record.get(key)!r}, but must be text. Each record needs "
                f"{', '.join(_PROMPT_KEYS)}."
            )
    return record


def _check_wordings(wordings: Any, where: str) -> None:
    if not isinstance(wordings, dict):
        raise DataError(f"{where}: not a mapping from names to lists of wordings.")
    owner: dict[str, str] = {}
    for name, listed in wordings.items():
        if not isinstance(listed, list) or not all(
            isinstance(w, str) and w.strip() for w in listed
        ):
            raise DataError(f"{where}: the wordings of {name!r} must be a list of words.")
        for wording in listed:
            other = owner.setdefault(wording.lower().strip(), name)
            if other != name:
                raise DataError(
                    f"{where}: {wording!r} is listed for both {other!r} and {name!r}, so a mention "
                    "of it has no one meaning. Keep it under one name."
                )
