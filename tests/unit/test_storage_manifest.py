"""The manifest alone says what is done."""

import json
import threading
from pathlib import Path

import pytest
from pydantic import ValidationError

from csr.errors import DataError
from storage import trees
from storage.manifest import (
    IterationManifest,
    ManifestFile,
    StageRecord,
    damaged_files,
    describe_file,
    fingerprint,
    utc_now,
)
from storage.tables import shard_path, write_table
from tests.sample_data import tree


@pytest.fixture
def manifest(tmp_path: Path) -> ManifestFile:
    file = ManifestFile(tmp_path / "manifest.json")
    file.create(
        IterationManifest(
            run_id="tiny",
            iteration=1,
            attempt=1,
            created_at="2030-01-02T03:04:05+00:00",
            config={"a": {"b": 1}},
            code_version="0.1.0",
            seed=7,
        )
    )
    return file


def record(stage: str = "generate", shard: int = 0, **changes: object) -> StageRecord:
    values = {
        "stage": stage,
        "shard": shard,
        "status": "done",
        "fingerprint": "f1",
        "started_at": "2030-01-02T03:04:05+00:00",
        "finished_at": "2030-01-02T03:04:06+00:00",
        "seconds": 1.0,
    }
    return StageRecord.model_validate(values | changes)


def written_shard(manifest: ManifestFile, shard: int = 0) -> Path:
    path = shard_path(manifest.path.parent / "nodes", shard)
    write_table(path, trees.trees_to_table([tree(str(shard))], iteration=1))
    return path


def test_fingerprint_is_pinned_and_sees_values_not_key_order():
    assert fingerprint(a=1, b={"x": 1, "y": [2]}) == fingerprint(b={"y": [2], "x": 1}, a=1)
    # sha256 of {"a":1}
    assert fingerprint(a=1) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    different = [
        fingerprint(),
        fingerprint(a=1),
        fingerprint(a="1"),
        fingerprint(a=1.5),
        fingerprint(a=None),
        fingerprint(b=1),
        fingerprint(a=[1]),
    ]
    assert len(set(different)) == len(different)
    with pytest.raises(ValueError, match="JSON"):
        fingerprint(a=float("nan"))
    with pytest.raises(TypeError):
        fingerprint(a=Path("x"))


def test_a_recorded_shard_is_done_for_its_own_fingerprint_only(manifest):
    path = written_shard(manifest)
    assert not manifest.is_done("generate", 0, "f1")
    stored = manifest.record(record(skipped={"equal_text": 2}), [path])
    assert manifest.is_done("generate", 0, "f1")
    assert not manifest.is_done("generate", 0, "f2")
    assert not manifest.is_done("generate", 1, "f1")
    assert not manifest.is_done("pair", 0, "f1")
    (file,) = stored.files
    assert (file.path, file.table, file.schema_version, file.rows) == (
        "nodes/00000.parquet",
        "nodes",
        1,
        3,
    )
    assert manifest.read().stage("generate") == stored


@pytest.mark.parametrize("status", ["running", "failed", "suspended"])
def test_only_done_is_done(manifest, status):
    manifest.record(record(status=status))
    assert not manifest.is_done("generate", 0, "f1")


def test_one_flipped_byte_undoes_one_shard_only(manifest):
    first, second = written_shard(manifest, 0), written_shard(manifest, 1)
    manifest.record(record(shard=0), [first])
    manifest.record(record(shard=1), [second])
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    assert not manifest.is_done("generate", 0, "f1")
    assert manifest.is_done("generate", 1, "f1")
    changed = manifest.read().stage("generate", 0)
    assert damaged_files(changed, manifest.path.parent) == [f"{first} changed after it was written"]
    second.unlink()
    assert not manifest.is_done("generate", 1, "f1")


def test_a_new_record_takes_the_old_one_s_place(manifest):
    manifest.record(record("generate", 0, status="failed", message="out of memory"))
    manifest.record(record("pair"))
    manifest.record(record("generate", 0, fingerprint="f2"))
    stages = manifest.read().stages
    assert [(s.stage, s.status, s.fingerprint) for s in stages] == [
        ("generate", "done", "f2"),
        ("pair", "done", "f1"),
    ]


def test_a_directory_is_recorded_file_by_file(manifest):
    policy = manifest.path.parent / "policy"
    (policy / "adapter").mkdir(parents=True)
    (policy / "adapter" / "b.safetensors").write_bytes(b"b")
    (policy / "a.json").write_text("{}")
    (policy / ".a.json.1.tmp").write_text("{")
    stored = manifest.record(record("train"), [policy])
    assert [f.path for f in stored.files] == ["policy/a.json", "policy/adapter/b.safetensors"]
    assert stored.files[1].rows is None
    assert stored.files[1].size_bytes == 1
    assert manifest.is_done("train", 0, "f1")
    (policy / "adapter" / "b.safetensors").write_bytes(b"c")
    assert not manifest.is_done("train", 0, "f1")


def test_skips_add_up_over_stages_and_shards(manifest):
    manifest.record(record(shard=0, skipped={"equal_text": 2, "unfinished": 1}))
    manifest.record(record(shard=1, skipped={"equal_text": 3}))
    manifest.record(record("pair", skipped={"small_margin": 4}))
    assert manifest.read().skipped() == {"equal_text": 5, "unfinished": 1, "small_margin": 4}


def test_many_shards_at_once_are_all_recorded(manifest):
    threads = [
        threading.Thread(target=manifest.record, args=(record(shard=shard),)) for shard in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(s.shard for s in manifest.read().stages) == list(range(12))


def test_update_changes_named_fields_and_keeps_the_rest(manifest):
    manifest.record(record())
    after = manifest.update(status="done", metrics={"chair_s": 0.25})
    assert after == manifest.read()
    assert (after.status, after.metrics, after.seed) == ("done", {"chair_s": 0.25}, 7)
    assert len(after.stages) == 1
    with pytest.raises(ValidationError):
        manifest.update(no_such_field=1)


def test_a_failed_update_leaves_the_old_manifest(manifest):
    before = manifest.path.read_bytes()
    with pytest.raises(ValidationError):
        manifest.update(status="wonderful")
    assert manifest.path.read_bytes() == before


def test_unknown_version_and_damage_are_refused(manifest):
    value = json.loads(manifest.path.read_text())
    manifest.path.write_text(json.dumps(value | {"manifest_version": 99}))
    with pytest.raises(DataError, match="manifest version 99, and this release reads version 1"):
        manifest.read()
    manifest.path.write_text(json.dumps(value | {"seed": "seven"}))
    with pytest.raises(DataError, match="is damaged"):
        manifest.read()
    manifest.path.write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        manifest.read()
    manifest.path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        manifest.read()


def test_times_are_utc():
    assert utc_now().endswith("+00:00")


def test_a_run_can_be_moved(manifest, tmp_path):
    manifest.record(record(), [written_shard(manifest)])
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    tmp_path.rename(moved)
    assert ManifestFile(moved / "manifest.json").is_done("generate", 0, "f1")


def test_a_foreign_parquet_file_is_described_by_its_bytes(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "x.parquet")
    described = describe_file(tmp_path / "x.parquet", tmp_path)
    assert (described.table, described.schema_version, described.rows) == (None, None, 2)
