"""Arrow tables as records: what Parquet files and Hugging Face datasets have in common.

Cells are taken as they are stored. No library decodes an image on the way: its bytes, or its path,
go through `csr.images` like those of any file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from csr.errors import DataError, shown
from csr.prompt_files import Columns, EmbeddedImage, PromptFiles
from csr.readers._conversations import Conversations, no_image
from csr.records import BadRecordError, Entry, Record

_FIELDS = ("id", "input", "reference", "dataset", "conversations")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row without its image."""

    where: str
    cells: dict[str, Any]
    """Column -> Arrow scalar, of the columns that were asked for."""
    has_image: bool
    """Whether the image's cell is not null."""
    load_image: Callable[[], Any]
    """The image's own cell, as an Arrow scalar."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which column is what."""

    image: str
    columns: dict[str, str]
    """Field of a record -> column, without the image's."""
    instruction: str | None


def choose(schema: pa.Schema, files: PromptFiles, where: str) -> Chosen:
    """The columns that the recipe names, else those with CSR's own names.

    DataError names the columns that there are, where one is missing or what it holds is no image.
    """
    given = files.columns or Columns()
    names = {field: getattr(given, field) or field for field in ("image", *_FIELDS)}
    missing = [
        name
        for field, name in names.items()
        if name not in schema.names and (field == "image" or getattr(given, field) is not None)
    ]
    found = {field: names[field] for field in _FIELDS if names[field] in schema.names}
    asked = files.instruction is not None
    if asked:
        found.pop("input", None)
    if asked or ("input" in found and given.conversations is None):
        found.pop("conversations", None)
    if not missing and not asked and not found.keys() & {"input", "conversations"}:
        missing = [names["input"]]
    if missing:
        told = ", ".join(shown(name, 60) for name in schema.names[:20])
        raise DataError(
            f"{where} has no column {shown(missing[0])}, only {told}. Say in data.columns which "
            "of them is the image and which is asked (input), or give a data.instruction."
        )
    if twice := [
        name for name in (names["image"], *found.values()) if schema.names.count(name) > 1
    ]:
        raise DataError(
            f"{where} has several columns {shown(twice[0])}, and which is meant is unknown. Name "
            "one of them otherwise."
        )
    _check_image_type(schema.field(names["image"]).type, names["image"], where)
    return Chosen(names["image"], found, files.instruction)


def entries(rows: Iterable[Row], chosen: Chosen) -> Iterator[Entry]:
    """The rows' records, numbered from 1."""
    conversations = Conversations()
    for number, row in enumerate(rows, start=1):
        record: Record = {"id": number, "input": chosen.instruction, "image": _image(row)}
        try:
            record |= {
                field: _plain(row, field, column) for field, column in chosen.columns.items()
            }
        except BadRecordError as error:
            yield Entry(number, row.where, record, error)
            continue
        if "conversations" in chosen.columns:
            yield from conversations.entries(number, row.where, record)
        else:
            yield Entry(number, row.where, record, no_image(record["image"], row.where))


def _plain(row: Row, field: str, column: str) -> Any:
    try:
        return row.cells[column].as_py()
    except (ValueError, pa.ArrowException) as error:  # UTF-8 is not checked as it is read
        raise BadRecordError(
            f"{row.where}: {field!r} cannot be read ({error}). Mend the record."
        ) from error


def _image(row: Row) -> EmbeddedImage | None:
    return EmbeddedImage(row.where, partial(_load, row)) if row.has_image else None


def _load(row: Row) -> bytes | str | None:
    """Bytes before a path, as the datasets library writes both."""
    try:
        value = row.load_image().as_py()
    except DataError:
        raise
    except (ValueError, OSError, pa.ArrowException) as error:
        raise DataError(
            f"image {row.where} cannot be read ({error}). Fetch the data again, or remove it."
        ) from error
    if isinstance(value, dict):
        data = value.get("bytes")
        value = value.get("path") or None if data is None else data
    if value is None or isinstance(value, bytes):
        return value
    return str(value)


def _check_image_type(kind: pa.DataType, column: str, where: str) -> None:
    known = ("bytes", "path")
    fields = [kind.field(i).name for i in range(kind.num_fields)] if _is_struct(kind) else []
    if _is_path(kind) or _is_bytes(kind) or any(name in known for name in fields):
        return
    raise DataError(
        f"{where}: the column {shown(column)} is {shown(str(kind))}, and an image is bytes, a "
        "path, or a struct of `bytes` and `path`. Name another in data.columns.image."
    )


def _is_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind))


def _is_path(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    )
