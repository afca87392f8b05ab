"""Reads what benchmarks are made of: prompts with ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from csr.errors import DataError, shown
from csr.images import image_ref
from csr.records import Entry, Record, prompt_id, question, read_entries, text_field
from csr.types import ImageRef, Prompt


def read_records(path: Path, check: Callable[[Record, str], None] | None = None) -> list[Record]:
    """The objects of a JSONL file or JSON list, each with text under `id`, `image`, `input`.

    `check` sees each record and the name of its place. DataError names the file and the first
    record that is not such an object, or a second record of one id: benchmarks are whole or not
    at all.
    """
    records: list[Record] = []
    first_of: dict[str, str] = {}
    for entry in read_entries(path):
        record = _checked_record(entry)
        if check is not None:
            check(record, entry.where)
        if record["id"] in first_of:
            raise DataError(
                f"{entry.where}: the id {shown(record['id'])} was used in "
                f"{first_of[record['id']]} already. Give each record its own id."
            )
        first_of[record["id"]] = entry.where
        records.append(record)
    return records


def num_records(path: str, limit: int | None) -> int | None:
    """How many records are asked; None where the file is not here, or is no use."""
    try:
        return len(read_entries(Path(path))[:limit])
    except DataError:
        return None


def count_prompts(prompt_ids: Callable[[], Sequence[str]]) -> int | None:
    """How many prompts a benchmark asks; None where its files are not here, or are no use."""
    try:
        return len(prompt_ids())
    except (DataError, OSError):
        return None


def build_prompts(records: Sequence[Record], images: Path, dataset: str) -> list[Prompt]:
    """One prompt a record. Each distinct image is checked once; DataError names a bad one."""
    first: dict[str, str] = {}
    for record in records:
        first.setdefault(record["image"], record["id"])
    refs = {name: _image(name, images, dataset, first[name]) for name in first}
    return [
        Prompt(
            prompt_id=record["id"],
            text=record["input"],
            image=refs[record["image"]],
            dataset=dataset,
        )
        for record in records
    ]


def _image(name: str, folder: Path, benchmark: str, record_id: str) -> ImageRef:
    try:
        return image_ref(name, root=folder)
    except DataError as error:
        raise DataError(f"benchmark {benchmark}, record {shown(record_id)}: {error}") from None


def _checked_record(entry: Entry) -> Record:
    """With a text id, and without an image marker around `input`: samplers add their own."""
    record, where = entry.record(), entry.where
    return {
        **record,
        "id": prompt_id(record, where),
        "image": text_field(record, "image", where),
        "input": question(record, where),
    }
