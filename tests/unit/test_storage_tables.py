"""Parquet files: whole or not there, checked on reading, hashed by what they say."""

import errno
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csr.errors import DataError, EnvironmentFault
from storage import rows, trees
from storage.schema import TABLES
from storage.tables import (
    content_sha256,
    count_rows,
    make_table,
    read_rows,
    read_table,
    shard_path,
    table_files,
    write_table,
)
from tests.sample_data import pair, prompt, tree


def prompt_table(*ids: str) -> pa.Table:
    return rows.prompts_to_table([prompt(i) for i in ids])


def node_table(*ids: str) -> pa.Table:
    return trees.trees_to_table([tree(i) for i in ids], iteration=1)


def with_metadata(table: pa.Table, **changes: str) -> pa.Table:
    named = {f"csr.{key}": value for key, value in changes.items()}
    old = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    return table.replace_schema_metadata(old | named)


def test_shards_are_read_in_order_and_unfinished_files_are_not(tmp_path):
    write_table(shard_path(tmp_path / "nodes", 10), node_table("c"))
    write_table(shard_path(tmp_path / "nodes", 2), node_table("a", "b"))
    (tmp_path / "nodes" / ".00011.parquet.123.tmp").write_bytes(b"half")
    (tmp_path / "nodes" / ".hidden.parquet").write_bytes(b"half")
    assert [p.name for p in table_files(tmp_path / "nodes")] == ["00002.parquet", "00010.parquet"]
    table = read_table(tmp_path / "nodes", "nodes")
    assert table.column("prompt_id").unique().to_pylist() == ["a", "b", "c"]
    assert table.schema.equals(TABLES["nodes"].schema, check_metadata=True)
    assert count_rows(tmp_path / "nodes") == table.num_rows == 9


def test_some_columns_of_some_prompts_are_read(tmp_path):
    write_table(shard_path(tmp_path / "nodes", 0), node_table("a", "b"))
    write_table(shard_path(tmp_path / "nodes", 1), node_table("c"))
    everything = read_table(tmp_path / "nodes", "nodes").to_pylist()
    wanted = [{"depth": row["depth"]} for row in everything if row["prompt_id"] in ("a", "c")]
    assert read_rows(tmp_path / "nodes", "nodes", ["depth"], {"c", "a", "x"}) == wanted
    assert len(read_rows(tmp_path / "nodes", "nodes", ["prompt_id"])) == len(everything)
    assert read_rows(tmp_path / "nodes", "nodes", ["depth"], []) == []
    assert read_rows(tmp_path / "pairs", "pairs", ["margin"]) == []
    with pytest.raises(DataError, match="a table of nodes, and a table of pairs is needed"):
        read_rows(tmp_path / "nodes", "pairs", ["margin"])


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "prompts.parquet"
    write_table(path, prompt_table("old"))
    before = path.read_bytes()

    def disk_full(table, where, **_):
        where.write_bytes(b"PAR1 half a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", disk_full)
    with pytest.raises(EnvironmentFault, match=r"the disk is full.*--home"):
        write_table(path, prompt_table("new"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_null_in_a_required_column_is_our_own_mistake(tmp_path):
    table = prompt_table("1")
    broken = table.set_column(1, TABLES["prompts"].schema.field(1), pa.nulls(1, pa.string()))
    with pytest.raises(AssertionError, match=r"prompts\.prompt_id: 1 nulls"):
        write_table(tmp_path / "x.parquet", broken)
    with pytest.raises(AssertionError, match="not a declared table"):
        write_table(tmp_path / "x.parquet", pa.table({"a": [1]}))
    with pytest.raises(AssertionError, match="prompts"):
        make_table("prompts", [{"prompt_id": "1"}])


def test_another_schema_version_is_refused_by_name(tmp_path):
    path = tmp_path / "nodes.parquet"
    pq.write_table(with_metadata(node_table("1"), schema_version="99"), path)
    with pytest.raises(DataError, match=r"nodes table has schema version 99.*reads version 1"):
        read_table(path, "nodes")


def test_missing_unknown_and_mistyped_columns_are_named(tmp_path):
    path = tmp_path / "prompts.parquet"
    table = prompt_table("1")
    table = table.drop_columns(["text"]).append_column("extra", pa.array([1]))
    place = table.schema.get_field_index("position")
    table = table.set_column(place, "position", pa.array(["0"]))
    pq.write_table(table, path)
    with pytest.raises(DataError) as caught:
        read_table(path, "prompts")
    for problem in (
        "missing column text",
        "unknown column extra",
        "column position is string, not int32",
    ):
        assert problem in str(caught.value)


def test_another_table_or_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    write_table(path, prompt_table("1"))
    with pytest.raises(DataError, match="is a table of prompts, and a table of nodes is needed"):
        read_table(path, "nodes")
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(DataError, match="is no table of a run"):
        read_table(path, "nodes")


def test_damaged_and_missing_files_are_named(tmp_path):
    path = tmp_path / "nodes" / "00000.parquet"
    write_table(path, node_table("1"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"00000\.parquet cannot be read as Parquet"):
        read_table(tmp_path / "nodes", "nodes")
    with pytest.raises(DataError, match="holds no nodes table"):
        read_table(tmp_path / "nothing", "nodes")


def test_content_hash_does_not_see_shards_row_groups_compression_or_order(tmp_path):
    table = node_table("a", "b", "c")
    write_table(tmp_path / "whole" / "00000.parquet", table)
    expected = content_sha256(tmp_path / "whole", "nodes")
    order = list(range(table.num_rows))
    random.Random(0).shuffle(order)
    shuffled = table.take(order)
    write_table(tmp_path / "shards" / "00000.parquet", shuffled.slice(0, 4))
    write_table(tmp_path / "shards" / "00001.parquet", shuffled.slice(4))
    pq.write_table(table, tmp_path / "groups.parquet", compression="none", row_group_size=2)
    pq.write_table(table, tmp_path / "plain.parquet", use_dictionary=False, version="1.0")
    assert content_sha256(tmp_path / "shards", "nodes") == expected
    assert content_sha256(tmp_path / "groups.parquet", "nodes") == expected
    assert content_sha256(tmp_path / "plain.parquet", "nodes") == expected


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("text", " A red circle"),
        ("reward", 0.5000000000000001),
        ("parent_id", ""),
        ("kept", False),
        ("token_ids", [14, 9, 32]),
        ("iteration", 2),
    ],
)
def test_content_hash_sees_every_change(tmp_path, column, value):
    table = node_table("a")
    changed = table.to_pylist()
    assert changed[0][column] != value
    changed[0][column] = value
    write_table(tmp_path / "one.parquet", table)
    write_table(tmp_path / "two.parquet", make_table("nodes", changed))
    one, two = (content_sha256(tmp_path / f"{n}.parquet", "nodes") for n in ("one", "two"))
    assert one != two


def test_content_hash_tells_empty_tables_apart_and_sees_embedded_bytes(tmp_path):
    for name in ("nodes", "pairs"):
        write_table(tmp_path / f"{name}.parquet", make_table(name, []))
    hashes = {content_sha256(tmp_path / f"{n}.parquet", n) for n in ("nodes", "pairs")}
    for data in (None, b"\x00\xff", b"\x00\xfe"):
        (row,) = rows.pairs_to_table([pair()], iteration=1, policy="p").to_pylist()
        row["images"] = [{"bytes": data, "path": "/a"}]
        write_table(tmp_path / "pairs.parquet", make_table("pairs", [row]))
        hashes.add(content_sha256(tmp_path / "pairs.parquet", "pairs"))
    assert len(hashes) == 5


def test_the_same_key_twice_is_refused(tmp_path):
    write_table(shard_path(tmp_path, 0), node_table("a"))
    write_table(shard_path(tmp_path, 1), node_table("a"))
    with pytest.raises(DataError, match=r"2 rows with the key .*'prompt_id': 'a'"):
        content_sha256(tmp_path, "nodes")


@given(
    st.lists(st.text("ab/.é", max_size=3), min_size=1, max_size=8, unique=True),
    st.data(),
)
@settings(max_examples=25, deadline=None)
def test_content_hash_is_that_of_the_set_of_rows(tmp_path_factory, ids, data):
    folder = tmp_path_factory.mktemp("hash")
    write_table(shard_path(folder / "one", 0), node_table(*ids))
    order = data.draw(st.permutations(ids))
    cut = data.draw(st.integers(0, len(ids)))
    write_table(shard_path(folder / "two", 0), node_table(*order[:cut]))
    write_table(shard_path(folder / "two", 1), node_table(*order[cut:]))
    assert content_sha256(folder / "one", "nodes") == content_sha256(folder / "two", "nodes")


def test_the_same_rows_are_the_same_bytes(tmp_path):
    write_table(tmp_path / "a.parquet", node_table("1"))
    write_table(tmp_path / "b.parquet", node_table("1"))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
