"""Data of other formats with any damage: prompts and quarantine, or a CSRError."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import event, example, given
from hypothesis import strategies as st

from csr.errors import CSRError
from csr.prompt_files import PromptFiles
from csr.types import SkipReason
from flows.reading import read_records
from storage.rows import prompts_from_table, prompts_to_table, quarantine_to_table
from tests.data_formats import embedded, picture, read, samples, write_coco, write_files
from tests.hostile.fuzz import altered, bounded, damaged, json_values


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("formats")
    write_files(root / "images", samples(3))
    write_coco(root / "coco", 3)
    return root


def check(prompts: Path, kept: Path, **settings: Any) -> None:
    """Every record is a prompt or is counted; what was read can be stored."""
    try:
        loaded = read(prompts, kept, **settings)
    except CSRError:
        event("refused")
        return
    event("read, with bad records" if loaded.bad_records else "read, all good")
    files = PromptFiles.model_validate({"prompts": str(prompts), **settings})
    num_records = len(read_records(files).entries)
    assert len(loaded.prompts) + len(loaded.bad_records) == num_records
    assert prompts_from_table(prompts_to_table(loaded.prompts)) == list(loaded.prompts)
    assert quarantine_to_table(loaded.bad_records).num_rows == len(loaded.bad_records)
    for image in loaded.kept_images:
        assert len(image.load()) == image.num_bytes


def shard(path: Path) -> bytes:
    with webdataset.TarWriter(str(path), mtime=0) as writer:
        for each in samples(3):
            fields = {"input": each.input, "reference": each.reference}
            writer.write({"__key__": each.id, "png": each.image, "json": fields})
    return path.read_bytes()


@given(data=st.data())
@bounded(250)
def test_shards(folder: Path, data: st.DataObject) -> None:
    path = folder / "a.tar"
    path.write_bytes(data.draw(damaged(shard(folder / "good.tar")) | st.binary(max_size=600)))
    check(path, folder, format="webdataset")


def parquet(path: Path, options: dict[str, Any]) -> bytes:
    pq.write_table(embedded(samples(3)), path, **options)
    return path.read_bytes()


@given(data=st.data(), compression=st.sampled_from(["none", "snappy"]))
@bounded(250)
def test_parquet(folder: Path, data: st.DataObject, compression: str) -> None:
    good = parquet(folder / "good.parquet", {"compression": compression, "row_group_size": 2})
    path = folder / "a.parquet"
    path.write_bytes(data.draw(damaged(good)))
    check(path, folder, format="parquet")


COLUMNS = {
    "id": st.integers() | json_values,
    "image": st.sampled_from(["s0.png", "../images/s1.png", {"bytes": picture(1)}]) | json_values,
    "input": st.just("What?") | json_values,
}


@given(columns=st.fixed_dictionaries(COLUMNS, optional={"reference": json_values}))
@bounded(100)
def test_parquet_of_any_columns(folder: Path, columns: dict[str, Any]) -> None:
    try:
        table = pa.table({name: [value, None] for name, value in columns.items()})
        pq.write_table(table, folder / "any.parquet")
    except (pa.ArrowException, UnicodeError, OverflowError, OSError):
        return  # no table holds that
    check(folder / "any.parquet", folder, format="parquet", images=str(folder / "images"))


TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A square."}]
TALK = {"id": "1", "image": "s0.png", "conversations": TURNS}


@given(
    listed=st.lists(
        altered(TALK) | st.just(TALK) | json_values.map(lambda t: TALK | {"conversations": t}),
        min_size=1, max_size=4,
    )
)  # fmt: skip
@example(listed=[TALK | {"conversations": [*TURNS, *TURNS, None]}])
@bounded(200)
def test_conversations(folder: Path, listed: list[Any]) -> None:
    (folder / "llava.json").write_text(json.dumps(listed))
    check(folder / "llava.json", folder, format="llava", images=str(folder / "images"))


@given(data=st.data())
@bounded(200)
def test_coco(folder: Path, data: st.DataObject) -> None:
    good = json.loads((folder / "coco/annotations/captions_train2014.json").read_text())
    path = folder / "captions.json"
    path.write_text(json.dumps(data.draw(altered(good))))
    check(
        path, folder, format="coco", images=str(folder / "coco/train2014"), instruction="Describe."
    )


def test_the_check_sees_a_prompt_and_a_bad_record(folder: Path) -> None:
    (folder / "llava.json").write_text(json.dumps([TALK, TALK | {"image": "none.png"}]))
    loaded = read(folder / "llava.json", images=str(folder / "images"))
    assert len(loaded.prompts) == 1
    assert loaded.skipped == {SkipReason.UNREADABLE_IMAGE: 1}
