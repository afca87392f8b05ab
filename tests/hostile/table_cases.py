"""Stored tables. Builders get the path of a good one and spoil it."""

import os
import random
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from storage.schema import TABLES
from storage.tables import make_table, write_table
from tests.hostile.bait import PICKLE
from tests.hostile.cases import Corpus, Fine, Refused

UNREAD = "cannot be read as Parquet"
MAGIC_BYTES = 4

TABLE_FILES = Corpus()


def rewritten(change: Callable[[pa.Table], pa.Table], **options: object) -> Callable[[Path], None]:
    """The table, changed, and written without our writer's checks."""

    def build(path: Path) -> None:
        pq.write_table(change(pq.read_table(path)), path, **options)

    return build


def with_metadata(**changes: str | None) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        kept = dict(table.schema.metadata)
        for name, value in changes.items():
            kept.pop(f"csr.{name}".encode(), None)
            if value is not None:
                kept[f"csr.{name}".encode()] = value.encode()
        return table.replace_schema_metadata(kept)

    return change


def bytes_changed(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


def flipped(place: Callable[[int], int]) -> Callable[[Path], None]:
    """One bit changed, at a place that depends on the file's length."""

    def change(data: bytes) -> bytes:
        at = place(len(data))
        return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]

    return bytes_changed(change)


def column(name: str, values: pa.Array) -> Callable[[pa.Table], pa.Table]:
    """One column replaced, the table's metadata kept."""
    return lambda table: table.set_column(table.schema.get_field_index(name), name, values)


def first_data_byte(size: int) -> int:
    return MAGIC_BYTES + 40


for name, build, words in [
    ("unknown_version", rewritten(with_metadata(schema_version="99")), "has schema version 99"),
    ("version_in_words", rewritten(with_metadata(schema_version="new")), "schema version new"),
    ("no_version", rewritten(with_metadata(schema_version=None)), "has schema version"),
    ("no_table_name", rewritten(with_metadata(table=None)), "is no table of a run"),
    ("foreign_table", rewritten(lambda table: pa.table({"a": [1]})), "is no table of a run"),
    ("another_table", rewritten(lambda table: make_table("pairs", [])), "is a table of pairs"),
    ("missing_column", rewritten(lambda t: t.drop_columns(["text"])), "missing column text"),
    ("further_column", rewritten(lambda t: t.append_column("x", t["text"])), "unknown column x"),
    ("no_columns", rewritten(lambda t: t.select([])), "missing column"),
    ("numbers_as_text", rewritten(lambda t: column("position", t["position"].cast(pa.string()))(t)),
     "column position is string, not int32"),
    ("text_as_bytes", rewritten(lambda t: column("text", t["text"].cast(pa.binary()))(t)),
     "column text is binary, not string"),
    ("null_where_none_may_be",
     rewritten(lambda t: column("text", pa.nulls(len(t), pa.string()))(t)), UNREAD),
    ("flipped_bit_in_a_page", flipped(first_data_byte), UNREAD),
    ("flipped_bit_in_the_length", flipped(lambda size: size - MAGIC_BYTES - 3), UNREAD),
    ("flipped_bit_in_the_magic", flipped(lambda size: size - 1), UNREAD),
    ("cut_in_half", bytes_changed(lambda data: data[: len(data) // 2]), UNREAD),
    ("cut_by_one_byte", bytes_changed(lambda data: data[:-1]), UNREAD),
    ("cut_at_its_start", bytes_changed(lambda data: data[7:]), UNREAD),
    ("magic_alone", bytes_changed(lambda data: b"PAR1"), UNREAD),
    ("magic_twice", bytes_changed(lambda data: b"PAR1" * 2), UNREAD),
    ("footer_of_4_gigabytes", bytes_changed(lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1"),
     UNREAD),
    ("empty_file", bytes_changed(lambda data: b""), UNREAD),
    ("text", bytes_changed(lambda data: b"position,prompt_id,text\n0,1,x\n"), UNREAD),
    ("json", bytes_changed(lambda data: b'{"position": 0}'), UNREAD),
    ("pickle", bytes_changed(lambda data: PICKLE), UNREAD),
    ("zeros", bytes_changed(lambda data: bytes(len(data))), UNREAD),
    ("noise", bytes_changed(lambda data: random.Random(0).randbytes(5000)), UNREAD),
    ("compressed_once_more", bytes_changed(zlib.compress), UNREAD),
]:  # fmt: skip
    TABLE_FILES.put(name, build, Refused(words))


@TABLE_FILES.add(Refused("missing column image_uri; unknown column image_urj"))
def flipped_bits_in_a_name(path: Path) -> None:
    data = path.read_bytes()
    start = data.index(b"\x18\x09image_uri")  # as Parquet's own schema writes it
    path.write_bytes(data[:start] + data[start:].replace(b"image_uri", b"image_urj", 1))


@TABLE_FILES.add(Refused(UNREAD))
def text_that_is_not_utf_8(path: Path) -> None:
    """As another writer may store it; Arrow itself looks only when it is told to."""
    table = pq.read_table(path)
    offsets = np.arange(len(table) + 1, dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"\xff" * len(table))]
    broken = pa.Array.from_buffers(pa.string(), len(table), buffers)
    pq.write_table(column("text", broken)(table), path)


@TABLE_FILES.add(Refused(UNREAD))
def arrow_file(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, pa.schema([])) as writer:
        writer.write_table(pa.table({}))


@TABLE_FILES.add(Refused(UNREAD))
def weights(path: Path) -> None:
    save_file({"a": np.zeros(3, np.float32)}, path)


@TABLE_FILES.add(Refused("holds no prompts table"))
def nothing(path: Path) -> None:
    path.unlink()


@TABLE_FILES.add(Refused("holds no prompts table"))
def empty_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@TABLE_FILES.add(Refused("is no file"))
def folder_with_a_pipe(path: Path) -> None:
    path.unlink()
    path.mkdir()
    os.mkfifo(path / "00000.parquet")


@TABLE_FILES.add(Refused("is no file"))
def folder_with_a_folder(path: Path) -> None:
    path.unlink()
    (path / "00000.parquet").mkdir(parents=True)


@TABLE_FILES.add(Refused("is a table of quarantine"))
def folder_of_two_tables(path: Path) -> None:
    shutil.move(path, path.with_suffix(".kept"))
    path.mkdir()
    shutil.move(path.with_suffix(".kept"), path / "00000.parquet")
    write_table(path / "00001.parquet", make_table("quarantine", []))


for name, change, options in [
    ("columns_in_another_order", lambda t: t.select(t.schema.names[::-1]), {}),
    ("other_compression", lambda t: t, {"compression": "snappy"}),
    ("no_compression", lambda t: t, {"compression": "none", "use_dictionary": False}),
    ("many_row_groups", lambda t: t, {"row_group_size": 1}),
    ("older_format", lambda t: t, {"version": "1.0", "data_page_version": "2.0"}),
]:
    TABLE_FILES.put(name, rewritten(change, **options), Fine())


@TABLE_FILES.add(Fine())
def unfinished_files_beside(path: Path) -> None:
    shutil.move(path, path.with_suffix(".kept"))
    path.mkdir()
    shutil.move(path.with_suffix(".kept"), path / "00000.parquet")
    (path / ".00001.parquet.12.tmp").write_bytes(b"PAR1 half")
    (path / ".hidden.parquet").write_bytes(b"PAR1 half")
    (path / "notes.txt").write_text("not a table")


assert "prompts" in TABLES
