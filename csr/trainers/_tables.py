"""Reads the Parquet files that trainers learn from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csr.errors import DataError
from csr.files import file_sha256
from csr.types import ImageRef


def read_rows(path: Path, required: Sequence[str], optional: Sequence[str]) -> list[dict[str, Any]]:
    """These columns of a Parquet file, or of a directory of them, in stored order.

    DataError where a file cannot be read or lacks a required column.
    """
    return [row for file in _files(path) for row in _read_file(file, required, optional)]


def row_image(row: dict[str, Any]) -> ImageRef:
    """The image that a row names."""
    return ImageRef(
        uri=row["image_uri"],
        sha256=row["image_sha256"],
        corruption=row.get("image_corruption"),
    )


def data_sha256(path: Path) -> list[str]:
    """Digest of each file that `read_rows` would read. DataError where one cannot be read."""
    digests = []
    for file in _files(path):
        try:
            digests.append(file_sha256(file))
        except OSError as error:
            raise _unreadable(file, error) from error
    return digests


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.parquet")) if path.is_dir() else [path]


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError(f"{file} cannot be read as a table to train on ({error}). Make it again.")


def _read_file(
    file: Path, required: Sequence[str], optional: Sequence[str]
) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(file).names
        missing = [name for name in required if name not in names]
        if missing:
            raise DataError(
                f"{file} is no table to train on: it lacks {', '.join(missing)}. Give the `pairs` "
                "or `demonstrations` folder of an iteration."
            )
        columns = [*required, *(name for name in optional if name in names)]
        return list(pq.read_table(file, columns=columns).to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error
