"""Parquet files with images as bytes, as `struct<bytes, path>`, or as paths.

The image column is read last and in small batches, since a row group may hold gigabytes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from csr.errors import DataError
from csr.images import MAX_IMAGE_BYTES, too_many_bytes
from csr.prompt_files import (
    PromptFiles,
    RawRecords,
    files_at,
    head,
    image_root,
    required_files,
)
from csr.readers._tables import Chosen, Row, choose, entries

SETTINGS = frozenset({"images", "image_prefix", "columns", "instruction"})
SUFFIXES = (".parquet", ".pq")
_MAGIC = b"PAR1"
_IMAGES_AT_ONCE = 16
_ROWS_AT_ONCE = 4096
_BUFFER_BYTES = 2**20
"""Of a column that is read page by page."""
_MAX_INFLATED_BYTES, _MAX_INFLATION = 2**28, 100
"""A row group whose images unpack to more than both, in bytes and in times what they take in the
file, is no set of images: those are compressed already."""


def recognises(prompts: str) -> bool:
    """Whether its files are Parquet, by their first bytes."""
    found = files_at(prompts, SUFFIXES)
    return bool(found) and head(found[0], len(_MAGIC)) == _MAGIC


def build(files: PromptFiles) -> RawRecords:
    """Every row of every file. DataError where one is no Parquet, or has other columns."""
    found = required_files(files.prompts, SUFFIXES)
    schemas = [_schema(path) for path in found]
    chosen = choose(schemas[0], files, str(found[0]))
    for path, schema in zip(found, schemas, strict=True):
        if choose(schema, files, str(path)) != chosen:
            raise DataError(
                f"{path} has other columns than {found[0]}. Read them by recipes of their own, or "
                "say in data.columns what all have."
            )
    cells = _ImageCells(chosen.image)
    rows = (
        row
        for path, schema in zip(found, schemas, strict=True)
        for row in _rows(path, schema.field(chosen.image).type, chosen, cells)
    )
    records = list(entries(rows, chosen))
    if not records:
        raise DataError(f"{files.prompts} has no rows. It needs at least one record.")
    return RawRecords(place=files.prompts, entries=records, image_root=image_root(files))


def _rows(
    path: Path, image_type: pa.DataType, chosen: Chosen, images: _ImageCells
) -> Iterator[Row]:
    """The file's rows, of whose images only what is small is looked at."""
    small = _small_part(image_type, chosen.image)
    columns = list(dict.fromkeys([*chosen.columns.values(), *small]))
    start = 0
    with _faults(path), _opened(path) as file:
        num_rows = file.metadata.num_rows
        if not columns:
            yield from (_row(path, number, {}, None, images) for number in range(num_rows))
            return
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns, use_threads=False):
            at = {name: batch.column(name) for name in batch.schema.names}
            image = at[chosen.image] if small else None
            for i in range(batch.num_rows):
                cells = {name: column[i] for name, column in at.items()}
                yield _row(path, start + i, cells, image and image[i], images)
            start += batch.num_rows


def _row(path: Path, number: int, cells: dict[str, Any], image: Any, images: _ImageCells) -> Row:
    return Row(
        where=f"{path}, row {number + 1}",
        cells=cells,
        has_image=image is None or image.is_valid,
        load_image=partial(images.cell, path, number),
    )


def _small_part(kind: pa.DataType, column: str) -> list[str]:
    """What tells, without its bytes, whether there is an image."""
    if pa.types.is_struct(kind):
        return [f"{column}.path"] if kind.get_field_index("path") >= 0 else []
    is_path = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return [column] if is_path else []


class _ImageCells:
    """The images of one file at a time, in the order of its rows."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._path: Path | None = None
        self._batches: Iterator[tuple[int, pa.Array | None]] = iter(())
        self._first = self._end = 0
        self._cells: pa.Array | None = None

    def cell(self, path: Path, row: int) -> pa.Scalar:
        """The cell of a row, from 0. A row before the one asked for last starts anew."""
        with _faults(path):
            if path != self._path or row < self._first:
                self._path, self._first, self._end = path, 0, 0
                self._batches = _image_batches(path, self._column)
            while row >= self._end:
                num_rows, self._cells = next(self._batches)
                self._first, self._end = self._end, self._end + num_rows
            if self._cells is None:
                raise too_many_bytes(f"{path}, row {row + 1}")
            return self._cells[row - self._first]


def _image_batches(path: Path, column: str) -> Iterator[tuple[int, pa.Array | None]]:
    """Number of rows and their images; None in place of a row group that would unpack to more
    bytes than its images may have, or to very many from very few.
    """
    with _opened(path) as file:
        for group in range(file.num_row_groups):
            facts = file.metadata.row_group(group)
            stored, unpacked = _bytes_of(facts, column)
            is_bomb = unpacked > max(_MAX_INFLATED_BYTES, _MAX_INFLATION * stored)
            if unpacked > MAX_IMAGE_BYTES * facts.num_rows or is_bomb:
                yield facts.num_rows, None
                continue
            for batch in file.iter_batches(
                _IMAGES_AT_ONCE, row_groups=[group], columns=[column], use_threads=False
            ):
                yield batch.num_rows, batch.column(0)


def _bytes_of(row_group: Any, column: str) -> tuple[int, int]:
    """Of a column in the file, and unpacked."""
    parts = [row_group.column(i) for i in range(row_group.num_columns)]
    named = [part for part in parts if f"{part.path_in_schema}.".startswith(f"{column}.")]
    stored = sum(part.total_compressed_size for part in named)
    return stored, sum(part.total_uncompressed_size for part in named)


def _schema(path: Path) -> pa.Schema:
    with _faults(path), _opened(path) as file:
        return file.schema_arrow


def _opened(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Damaged files raise many kinds of error, of which all say the same to a user."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, StopIteration) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} cannot be read as Parquet ({error or 'it ends too early'}). Fetch it again, "
            "or remove it."
        ) from error
