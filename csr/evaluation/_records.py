"""Reads what benchmarks are made of: prompts with ground truth, and vocabularies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csr.errors import DataError, shown
from csr.images import image_ref
from csr.records import Entry, Record, prompt_id, question, read_entries, read_text, text_field
from csr.types import Prompt

Wordings = dict[str, list[str]]


def read_records(path: Path) -> list[Record]:
    """The objects of a JSONL file or JSON list, each with text under `id`, `image`, `input`.

    DataError names the file and the first record that is not such an object, or a second
    record of one id: benchmarks are whole or not at all.
    """
    records: list[Record] = []
    first_of: dict[str, str] = {}
    for entry in read_entries(path):
        record = _checked_record(entry)
        if record["id"] in first_of:
            raise DataError(
                f"{entry.where}: the id {shown(record['id'])} was used in "
                f"{first_of[record['id']]} already. Give each record its own id."
            )
        first_of[record["id"]] = entry.where
        records.append(record)
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
        document = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
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


def _checked_record(entry: Entry) -> Record:
    """With a text id, and without an image marker around `input`: samplers add their own."""
    record, where = entry.record(), entry.where
    return {
        **record,
        "id": prompt_id(record, where),
        "image": text_field(record, "image", where),
        "input": question(record, where),
    }


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
