"""Tables on disk: Parquet files, whole or in shards, checked on the way in and out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from csr.errors import DataError, shown
from storage.atomic import write_atomic
from storage.schema import TABLES, Table

_HASH_BATCH_ROWS = 4096


def shard_path(directory: Path, shard: int) -> Path:
    """Where a shard of a table lies: `<directory>/00007.parquet`."""
    return directory / f"{shard:05d}.parquet"


def make_table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as an Arrow table of the declared schema. Every column must be in every row."""
    table = TABLES[name]
    for row in rows:
        assert row.keys() == {c.name for c in table.columns}, f"{name}: {sorted(row)}"
    return pa.Table.from_pylist(rows, schema=table.schema)


def write_table(path: Path, table: pa.Table) -> None:
    """Write one shard atomically, zstd-compressed.

    The table must have a declared schema, as `make_table` gives it. EnvironmentFault
    where the disk is full; an older file under `path` then stays as it was.
    """
    declared = _declaration(table.schema)
    for column in declared.columns:
        nulls = table.column(column.name).null_count
        assert column.nullable or nulls == 0, f"{declared.name}.{column.name}: {nulls} nulls"
    options = {"compression": "zstd", "write_page_checksum": True}
    write_atomic(path, lambda temporary: pq.write_table(table, temporary, **options))


def read_table(path: Path, name: str) -> pa.Table:
    """All rows of the table `name` in a file, or in a directory's shards in name order.

    DataError where nothing is there, a file is damaged, or its schema version or
    columns are not the declared ones.
    """
    shards = [_read_file(file, TABLES[name]) for file in table_files(path)]
    if not shards:
        raise DataError(
            f"{path} holds no {name} table. Check the path, or run the stage that writes it."
        )
    return pa.concat_tables(shards)


def read_rows(
    path: Path, name: str, columns: Sequence[str], prompt_ids: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """Some columns of some prompts' rows, or of all; no rows where there is no table.

    A shard at a time, so that a table which is larger than memory can be looked into. DataError as
    `read_table`.
    """
    rows: list[dict[str, Any]] = []
    for file in table_files(path):
        with _damage_told(file):
            source = pq.ParquetFile(file, page_checksum_verification=True)
            _check_schema(file, source.schema_arrow, TABLES[name])
            table = source.read(columns=[*dict.fromkeys(["prompt_id", *columns])])
            if prompt_ids is not None:
                wanted = pa.array(sorted(prompt_ids), pa.string())
                table = table.filter(pc.is_in(table["prompt_id"], value_set=wanted))
            rows += table.select(list(columns)).to_pylist()
    return rows


def table_files(path: Path) -> list[Path]:
    """The Parquet files of a table: `path` itself, or a directory's shards in name order."""
    if path.is_file():
        return [path]
    return sorted(p for p in path.glob("*.parquet") if not p.name.startswith("."))


def count_rows(path: Path) -> int:
    """Rows of a table by the files' footers alone. DataError where one is damaged."""
    num_rows = 0
    for file in table_files(path):
        with _damage_told(file):
            num_rows += pq.ParquetFile(file).metadata.num_rows
    return num_rows


def table_identity(file: Path) -> tuple[str | None, int | None]:
    """Name and schema version that a Parquet file claims; None where it is no table of ours."""
    with _damage_told(file):
        metadata = pq.read_schema(file).metadata or {}
    name, version = metadata.get(b"csr.table"), metadata.get(b"csr.schema_version")
    return (name.decode() if name else None, int(version) if version else None)


def content_sha256(path: Path, name: str) -> str:
    """Hex digest over the table's logical rows in key order.

    It does not depend on the number of shards, on compression or on row groups.
    DataError as `read_table`, or where two rows have the same key.
    """
    declared = TABLES[name]
    table = read_table(path, name)
    table = table.sort_by([(column, "ascending") for column in declared.key])
    _refuse_equal_keys(table, declared, path)
    digest = hashlib.sha256(f"{name} {declared.version}\n".encode())
    for batch in table.to_batches(max_chunksize=_HASH_BATCH_ROWS):
        for row in batch.to_pylist():
            digest.update(_canonical(row))
    return digest.hexdigest()


def _canonical(row: dict[str, Any]) -> bytes:
    """One row as bytes: JSON prints a float so that it reads back as the same float."""
    line = json.dumps(row, sort_keys=True, separators=(",", ":"), default=_binary_digest)
    return line.encode() + b"\n"


def _binary_digest(value: Any) -> str:
    assert isinstance(value, bytes), type(value)
    return hashlib.sha256(value).hexdigest()


def _refuse_equal_keys(table: pa.Table, declared: Table, path: Path) -> None:
    counts = table.group_by(list(declared.key)).aggregate([([], "count_all")])
    repeated = [row for row in counts.to_pylist() if row["count_all"] > 1]
    if repeated:
        key = {column: repeated[0][column] for column in declared.key}
        raise DataError(
            f"{path}: the {declared.name} table has {repeated[0]['count_all']} rows with the key "
            f"{key}. Two shards hold the same prompt; make a new attempt of this iteration."
        )


def _declaration(schema: pa.Schema) -> Table:
    """The declared table that `schema` is."""
    name = (schema.metadata or {}).get(b"csr.table", b"").decode()
    assert name in TABLES, f"not a declared table: {name!r}"
    assert schema.equals(TABLES[name].schema), f"{name}: the columns are not the declared ones"
    return TABLES[name]


def _read_file(path: Path, declared: Table) -> pa.Table:
    if not path.is_file():
        raise DataError(f"{path} is no file. Move it away, and run the stage again.")
    with _damage_told(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        _check_schema(path, file.schema_arrow, declared)
        table = file.read()
        table.validate(full=True)
        # The checksums cover the pages; a flipped byte in the footer may take rows away.
        if not table.num_rows == file.metadata.num_rows == _rows_of_groups(file):
            raise pa.ArrowInvalid("the footer is at odds about the number of rows")
        return table.select(declared.schema.names).cast(declared.schema)


def _rows_of_groups(file: pq.ParquetFile) -> int:
    return sum(file.metadata.row_group(n).num_rows for n in range(file.num_row_groups))


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Whatever a reader of Parquet raises, as DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # OSError, ArrowException, and plain Python errors from bindings
        raise DataError(
            f"{path} cannot be read as Parquet ({shown(str(error))}). It is damaged or still being "
            "written; run the stage again."
        ) from error


def _check_schema(path: Path, found: pa.Schema, declared: Table) -> None:
    """Refuse a file that is not the declared table in the declared version."""
    metadata = found.metadata or {}
    name = metadata.get(b"csr.table", b"").decode(errors="replace")
    if name != declared.name:
        raise DataError(
            f"{path} is {f'a table of {name}' if name else 'no table of a run'}, and a "
            f"table of {declared.name} is needed. Check the path."
        )
    version = metadata.get(b"csr.schema_version", b"").decode(errors="replace")
    if version != str(declared.version):
        raise DataError(
            f"{path}: the {name} table has schema version {version}, and this release reads "
            f"version {declared.version}. Read it with the release that wrote it."
        )
    wanted = declared.schema
    problems = [f"missing column {n}" for n in wanted.names if n not in found.names]
    problems += [f"unknown column {n}" for n in found.names if n not in wanted.names]
    problems += [
        f"column {n} is {found.field(n).type}, not {wanted.field(n).type}"
        for n in wanted.names
        if n in found.names and found.field(n).type != wanted.field(n).type
    ]
    if problems:
        raise DataError(
            f"{path}: the {name} table does not have its columns: {'; '.join(problems)}. Write it "
            "again with this release."
        )
