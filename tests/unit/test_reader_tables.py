"""Parquet files and Hugging Face datasets: the same rows, one table each."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from csr.errors import ConfigError, DataError
from csr.images import load_bytes
from csr.prompt_files import Columns, PromptFiles
from csr.readers import parquet
from csr.types import SkipReason
from flows.reading import check_settings
from storage.images import ImageStore
from tests.data_formats import embedded, picture, read, samples, write_files, write_parquet


def test_images_as_bytes_are_prompts_with_a_place_for_each_image(tmp_path: Path) -> None:
    given = samples(40)
    path = write_parquet(tmp_path / "train.parquet", given, row_group_size=7)
    loaded = read(path, tmp_path / "kept")
    assert [p.prompt_id for p in loaded.prompts] == [each.id for each in given]
    assert [p.text for p in loaded.prompts] == [each.input for each in given]
    assert [p.reference for p in loaded.prompts] == [each.reference for each in given]
    assert [kept.load() for kept in loaded.kept_images] == [each.image for each in given]
    first = loaded.prompts[0].image
    assert first.uri == str(tmp_path / "kept" / first.sha256)
    assert not (tmp_path / "kept").exists()


def test_kept_images_are_what_the_references_say(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    path = write_parquet(tmp_path / "train.parquet", samples(3))
    loaded = read(path, image_place=store.path)
    assert store.missing_bytes([loaded.kept_images]) == sum(len(s.image) for s in samples(3))
    store.keep(loaded.kept_images)
    assert [load_bytes(p.image) for p in loaded.prompts] == [s.image for s in samples(3)]
    assert store.missing_bytes([loaded.kept_images]) == 0


def test_one_image_in_many_rows_is_kept_once(tmp_path: Path) -> None:
    given = [replace(each, image=picture(5)) for each in samples(4)]
    loaded = read(write_parquet(tmp_path / "a.parquet", given), tmp_path)
    assert len(loaded.prompts) == 4
    assert len(loaded.kept_images) == 1


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_plain_bytes(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"image": pa.array([picture(1), None], kind), "input": ["a", "b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    loaded = read(tmp_path / "a.parquet", tmp_path)
    assert [(p.prompt_id, p.text) for p in loaded.prompts] == [("1", "a")]
    assert loaded.skipped == {SkipReason.NO_IMAGE: 1}


def test_paths_and_paths_within_structs_start_from_the_image_folder(tmp_path: Path) -> None:
    root = write_files(tmp_path / "images", samples(2))
    plain = pa.table({"image": ["s0.png", "../x.png", None], "input": ["a", "b", "c"]})
    pq.write_table(plain, tmp_path / "plain.parquet")
    loaded = read(tmp_path / "plain.parquet", images=str(root))
    assert [p.image.uri for p in loaded.prompts] == [str(root / "s0.png")]
    assert loaded.skipped == {SkipReason.UNREADABLE_IMAGE: 1, SkipReason.NO_IMAGE: 1}
    rows = [{"bytes": None, "path": "s1.png"}, {"bytes": None, "path": None}, None]
    pq.write_table(pa.table({"image": rows, "input": ["a", "b", "c"]}), tmp_path / "struct.parquet")
    loaded = read(tmp_path / "struct.parquet", images=str(root))
    assert [p.image.uri for p in loaded.prompts] == [str(root / "s1.png")]
    assert loaded.kept_images == ()
    assert loaded.skipped == {SkipReason.NO_IMAGE: 2}


def test_a_path_without_an_image_folder_is_told_to_need_one(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": ["a.png"], "input": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(
        DataError, match=r"'a\.png' is named by its path, and there is no data\.images"
    ):
        read(tmp_path / "a.parquet")


def test_columns_of_other_names_and_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "question_id": [17, 18],
            "picture": [{"bytes": picture(n), "path": ""} for n in range(2)],
            "question": pa.array(["What?", "Who?"]).dictionary_encode(),
            "answer": pa.array(["This.", None], pa.large_string()),
            "scores": [[1.0], [2.0]],
        }
    )
    pq.write_table(table, tmp_path / "vqa.parquet")
    columns = {
        "id": "question_id", "image": "picture", "input": "question", "reference": "answer",
    }  # fmt: skip
    loaded = read(tmp_path / "vqa.parquet", tmp_path, columns=columns)
    assert [(p.prompt_id, p.text, p.reference) for p in loaded.prompts] == [
        ("17", "What?", "This."),
        ("18", "Who?", None),
    ]


def test_a_path_may_be_the_id_too(tmp_path: Path) -> None:
    root = write_files(tmp_path / "images", samples(2))
    pq.write_table(pa.table({"file": ["s0.png", "s1.png"]}), tmp_path / "a.parquet")
    columns = {"image": "file", "id": "file"}
    loaded = read(tmp_path / "a.parquet", images=str(root), columns=columns, instruction="Look.")
    assert [(p.prompt_id, Path(p.image.uri).name) for p in loaded.prompts] == [
        ("s0.png", "s0.png"),
        ("s1.png", "s1.png"),
    ]


def test_a_column_that_stands_twice(tmp_path: Path) -> None:
    table = pa.table([["a"], ["b"], ["c"]], names=["image", "input", "input"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="has several columns 'input'"):
        read(tmp_path / "a.parquet", tmp_path)


def test_an_instruction_for_captioned_images(tmp_path: Path) -> None:
    table = embedded(samples(2)).drop_columns(["input", "id"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column 'input', only 'image', 'reference'"):
        read(tmp_path / "a.parquet", tmp_path)
    loaded = read(tmp_path / "a.parquet", tmp_path, instruction="Describe it.")
    assert [(p.prompt_id, p.text, p.reference) for p in loaded.prompts] == [
        ("1", "Describe it.", "Picture 0."),
        ("2", "Describe it.", "Picture 1."),
    ]


def test_conversations_in_a_column(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "<image>\nWhat?"},
        {"from": "gpt", "value": "A dog."},
        {"from": "human", "value": "Which colour?"},
    ]
    table = pa.table(
        {
            "id": ["a", "a", "b"],
            "image": [{"bytes": picture(1), "path": None}] * 2 + [None],
            "conversations": [turns, turns[:2], turns[:1]],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    loaded = read(tmp_path / "a.parquet", tmp_path)
    assert [(p.prompt_id, p.text, p.reference) for p in loaded.prompts] == [
        ("a", "What?", "A dog."),
        ("a@2", "What?", "A dog."),
    ]
    assert loaded.skipped == {SkipReason.LATER_TURN: 1, SkipReason.NO_IMAGE: 1}


@pytest.mark.parametrize("other", ["input", "reference"])
def test_conversations_leave_no_other_column_an_effect(other: str) -> None:
    columns = Columns.model_validate({"conversations": "c", other: "q"})
    with pytest.raises(ConfigError, match=rf"data\.columns\.{other} would have no effect"):
        check_settings(PromptFiles(prompts="a.parquet", columns=columns))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"image": "img"}, "no column 'img', only 'id', 'image', 'input', 'reference'"),
        ({"reference": "answer"}, "no column 'answer'"),
        ({"image": "input_ids"}, "the column 'input_ids' is 'list<"),
    ],
)
def test_a_column_that_cannot_be_is_named(
    tmp_path: Path, columns: dict[str, str], words: str
) -> None:
    table = embedded(samples(1))
    if columns["image" if "image" in columns else "reference"] == "input_ids":
        table = table.append_column("input_ids", [[[1, 2]]])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=words):
        read(tmp_path / "a.parquet", tmp_path, columns=columns)


def test_a_folder_and_a_pattern_are_read_file_after_file(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_parquet(folder / "train-00001.parquet", samples(3, 20))
    write_parquet(folder / "train-00000.parquet", samples(20))
    (folder / ".hidden.parquet").write_bytes(b"")
    expected = [f"s{n}" for n in range(23)]
    for prompts in (folder, folder / "train-*.parquet", folder / "train-0000?.parquet"):
        loaded = read(prompts, tmp_path / "kept")
        assert [p.prompt_id for p in loaded.prompts] == expected
        assert [kept.load() for kept in loaded.kept_images][-1] == picture(22)
    write_parquet(folder / "train-00002.parquet", samples(1))
    loaded = read(folder, tmp_path / "kept")
    (bad,) = loaded.bad_records
    assert bad.reason == SkipReason.DUPLICATE_ID
    assert f"{folder / 'train-00002.parquet'}, row 1" in bad.message
    pq.write_table(pa.table({"image": [b""], "text": ["a"]}), folder / "train-00003.parquet")
    with pytest.raises(DataError, match=r"train-00003\.parquet has no column 'input'"):
        read(folder, tmp_path / "kept")


def test_images_are_read_in_small_batches(tmp_path: Path, monkeypatch: Any) -> None:
    """Rows in order cost one pass; a row before starts anew."""
    path = write_parquet(tmp_path / "a.parquet", samples(40))
    opened = []
    original = parquet._image_batches
    monkeypatch.setattr(
        parquet, "_image_batches", lambda *given: opened.append(given) or original(*given)
    )
    cells = parquet._ImageCells("image")
    for row in (0, 15, 16, 39, 38):
        assert cells.cell(path, row).as_py()["bytes"] == picture(row)
    assert len(opened) == 1
    assert cells.cell(path, 3).as_py()["bytes"] == picture(3)
    assert len(opened) == 2


# ---------------------------------------------------------------- hostile


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PAR1", "cannot be read as Parquet"),
        (b"PAR1" + b"\xff" * 400 + b"PAR1", "cannot be read as Parquet"),
    ],
)
def test_what_is_no_parquet(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(DataError, match=words):
        read(tmp_path / "a.parquet", tmp_path)


def test_a_cut_file_and_one_damaged_within_an_image(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", samples(30), compression="none")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read(path, tmp_path)
    at = whole.index(picture(7)) + 40
    path.write_bytes(whole[:at] + b"\x00\x00" + whole[at + 2 :])
    loaded = read(path, tmp_path)
    assert len(loaded.prompts) == 29
    (bad,) = loaded.bad_records
    assert (bad.position, bad.reason) == (8, SkipReason.UNREADABLE_IMAGE)
    assert "row 8" in bad.message


def test_what_would_unpack_to_more_than_images_may_have(tmp_path: Path) -> None:
    """68 MB of zeros in 100 kB, which are not unpacked."""
    images = [picture(0), bytes(68_000_000), picture(2)]
    table = pa.table({"image": images, "input": ["a", "b", "c"]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1, compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    loaded = read(tmp_path / "a.parquet", tmp_path)
    assert [p.prompt_id for p in loaded.prompts] == ["1", "3"]
    assert "larger than 67,108,864 bytes" in loaded.bad_records[0].message


@pytest.mark.parametrize("column", ["image", "img.data"])
def test_a_cell_that_hides_among_many_is_not_unpacked(
    tmp_path: Path, monkeypatch: Any, column: str
) -> None:
    """Many zeros in one of 20 rows, which together might have as much."""
    monkeypatch.setattr("csr.readers.parquet._MAX_INFLATED_BYTES", 1_000_000)
    images = [bytes(2_000_000), *[b"x"] * 19]
    table = pa.table({column: images, "input": ["?"] * 20})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    with pytest.raises(DataError, match="larger than 67,108,864 bytes"):
        read(tmp_path / "a.parquet", tmp_path, columns={"image": column})


def test_text_that_is_no_utf8_spoils_its_own_row(tmp_path: Path) -> None:
    texts = pa.Array.from_buffers(
        pa.string(), 2, pa.array([b"fine", b"\xff\xfe"], pa.binary()).buffers()
    )
    images = [{"bytes": picture(n), "path": ""} for n in range(2)]
    pq.write_table(pa.table({"image": images, "input": texts}), tmp_path / "a.parquet")
    loaded = read(tmp_path / "a.parquet", tmp_path)
    assert [p.text for p in loaded.prompts] == ["fine"]
    assert loaded.skipped == {SkipReason.INVALID_RECORD: 1}
    assert "'input' cannot be read" in loaded.bad_records[0].message


def test_no_rows(tmp_path: Path) -> None:
    pq.write_table(embedded(samples(1)).slice(1), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="has no rows"):
        read(tmp_path / "a.parquet", tmp_path)


def test_data_that_change_while_the_run_is_prepared(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", samples(40))
    loaded = read(path, tmp_path / "kept")
    write_parquet(path, samples(40, start=90))
    with pytest.raises(DataError, match="changed while the run was being prepared"):
        ImageStore(tmp_path).keep(loaded.kept_images)


# ---------------------------------------------------------------- Hugging Face


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: Any) -> Any:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets

    datasets.disable_progress_bars()
    return datasets


def as_dataset(datasets: Any, num: int, start: int = 0) -> Any:
    rows = embedded(samples(num, start)).to_pydict()
    dataset = datasets.Dataset.from_dict(rows)
    return dataset.cast_column("image", datasets.Image())


def test_a_saved_dataset_is_read_undecoded(datasets: Any, tmp_path: Path, monkeypatch: Any) -> None:
    as_dataset(datasets, 5).save_to_disk(tmp_path / "saved")
    monkeypatch.setattr(datasets.Image, "decode_example", None)
    loaded = read(tmp_path / "saved", tmp_path / "kept")
    assert [p.prompt_id for p in loaded.prompts] == [f"s{n}" for n in range(5)]
    assert [p.reference for p in loaded.prompts] == [f"Picture {n}." for n in range(5)]
    assert [kept.load() for kept in loaded.kept_images] == [picture(n) for n in range(5)]


def test_a_shuffled_dataset_keeps_images_and_questions_together(
    datasets: Any, tmp_path: Path
) -> None:
    as_dataset(datasets, 30).shuffle(seed=3).select(range(9)).save_to_disk(tmp_path / "saved")
    loaded = read(tmp_path / "saved", tmp_path / "kept")
    assert len(loaded.prompts) == 9
    for prompt, kept in zip(loaded.prompts, loaded.kept_images, strict=True):
        assert kept.load() == picture(int(prompt.prompt_id[1:]))


def test_splits_of_a_saved_dataset(datasets: Any, tmp_path: Path) -> None:
    splits = {"train": as_dataset(datasets, 2), "test": as_dataset(datasets, 3)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert len(read(tmp_path / "saved", tmp_path / "kept").prompts) == 2
    assert len(read(tmp_path / "saved", tmp_path / "kept", split="test").prompts) == 3
    with pytest.raises(DataError, match="no split 'dev', only 'train', 'test'"):
        read(tmp_path / "saved", tmp_path / "kept", split="dev")
    with pytest.raises(ConfigError, match=r"data\.split would have no effect .* 'parquet'"):
        read(write_parquet(tmp_path / "a.parquet", samples(1)), tmp_path, split="test")


def test_a_folder_of_data_files_and_one_of_images(datasets: Any, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    as_dataset(datasets, 4).to_parquet(tmp_path / "hub" / "train-00000-of-00001.parquet")
    loaded = read(tmp_path / "hub", tmp_path / "kept", format="huggingface")
    assert len(loaded.prompts) == 4
    assert read(tmp_path / "hub", tmp_path / "kept").prompts == loaded.prompts  # as Parquet
    root = write_files(tmp_path / "folder" / "train", samples(2))
    lines = [{"file_name": f"s{n}.png", "input": f"Which {n}?"} for n in range(2)]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    loaded = read(tmp_path / "folder", format="huggingface")
    assert sorted((p.text, Path(p.image.uri).name) for p in loaded.prompts) == [
        ("Which 0?", "s0.png"),
        ("Which 1?", "s1.png"),
    ]


@pytest.mark.parametrize(
    ("prompts", "asked"),
    [
        ("hf:owner/name", ("owner/name", None, "train")),
        ("hf:owner/name@validation", ("owner/name", None, "validation")),
        ("hf:owner/na.me:all@train[:10%]", ("owner/na.me", "all", "train[:10%]")),
        ("hf:squad:plain", ("squad", "plain", "train")),
    ],
)
def test_what_the_hub_is_asked(
    datasets: Any, tmp_path: Path, monkeypatch: Any, prompts: str, asked: tuple[str, ...]
) -> None:
    """The library's own border is as far as a machine without network goes."""
    seen = []

    def load_dataset(name: str, config: str | None, *, split: str) -> Any:
        seen.append((name, config, split))
        return as_dataset(datasets, 2)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    loaded = read(prompts, tmp_path / "kept")
    assert seen == [asked]
    assert len(loaded.prompts) == 2
    assert loaded.prompts[0].image.uri.startswith(str(tmp_path / "kept"))


def test_a_folder_is_not_taken_for_the_hubs(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="owner/name is also a folder here"):
        read("hf:owner/name", tmp_path)


def test_what_the_hub_cannot_be_asked(datasets: Any, tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(ConfigError, match="no dataset's id"):
        read("hf:owner/name/more", tmp_path)
    with pytest.raises(ConfigError, match=r"Write hf:owner/name@test"):
        read("hf:owner/name", tmp_path, split="test")

    def unreachable(*given: Any, **options: Any) -> Any:
        raise ConnectionError("Couldn't reach\nthe hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    words = r"hf:owner/name cannot be loaded as a dataset \(ConnectionError: Couldn't reach the hub"
    with pytest.raises(DataError, match=words):
        read("hf:owner/name", tmp_path)


def test_a_damaged_saved_dataset(datasets: Any, tmp_path: Path) -> None:
    as_dataset(datasets, 5).save_to_disk(tmp_path / "saved")
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:300])
    with pytest.raises(DataError, match="cannot be loaded as a dataset"):
        read(tmp_path / "saved", tmp_path)
