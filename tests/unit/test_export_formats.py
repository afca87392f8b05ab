"""What each format's files hold, row by row, and that `datasets` reads the same out of them."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from PIL import Image

from csr.errors import DataError
from csr.types import ImageRef
from flows.exporting.formats import llama_factory, llava, ms_swift, trl
from flows.exporting.lessons import Lessons, usable
from tests.export_samples import HOSTILE, demonstration, lessons_of, pictures_in, with_texts
from tests.sample_data import pair, saved_image

JSON_FORMATS = (llama_factory, ms_swift, llava)


@pytest.fixture
def image(tmp_path: Path) -> ImageRef:
    return saved_image(tmp_path / "a.png")


def rows_of(path: Path) -> list[Any]:
    """As a program without `datasets` would read the file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return list(json.loads(text))


def loaded(path: Path, kind: str, tmp_path: Path) -> list[Any]:
    cache = str(tmp_path / "cache")
    return list(load_dataset(kind, data_files=str(path), split="train", cache_dir=cache))


def test_llama_factory(tmp_path: Path, image: ImageRef) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    files = llama_factory.write(lessons_of(image), pictures_in(folder), folder, "tiny_01_1")
    assert [(f.kind, f.path.name, f.num_rows) for f in files] == [
        ("pairs", "pairs.json", 1), ("demonstrations", "demonstrations.json", 1),
    ]  # fmt: skip
    assert rows_of(folder / "pairs.json") == [
        {
            "conversations": [{"from": "human", "value": "<image>Describe the image."}],
            "chosen": {"from": "gpt", "value": "A red circle."},
            "rejected": {"from": "gpt", "value": "A blue dog."},
            "images": [f"images/{image.sha256}.png"],
            "pair_id": "42#0",
            "prompt_id": "42",
            "chosen_reward": 2.0,
            "rejected_reward": 0.5,
        }
    ]
    assert rows_of(folder / "demonstrations.json") == [
        {
            "conversations": [
                {"from": "human", "value": "<image>Why?"},
                {"from": "gpt", "value": "It is red."},
            ],
            "images": [f"images/{image.sha256}.png"],
            "demonstration_id": "42/0",
            "prompt_id": "42",
            "kind": "rationale",
            "weight": 0.5,
        }
    ]
    columns = {"messages": "conversations", "images": "images"}
    assert json.loads((folder / "dataset_info.json").read_text()) == {
        "tiny_01_1_pairs": {
            "file_name": "pairs.json",
            "formatting": "sharegpt",
            "ranking": True,
            "columns": {**columns, "chosen": "chosen", "rejected": "rejected"},
        },
        "tiny_01_1_demonstrations": {
            "file_name": "demonstrations.json",
            "formatting": "sharegpt",
            "columns": columns,
        },
    }
    assert (folder / f"images/{image.sha256}.png").read_bytes() == Path(image.uri).read_bytes()


def test_ms_swift(tmp_path: Path, image: ImageRef) -> None:
    ms_swift.write(lessons_of(image), pictures_in(tmp_path), tmp_path, "unused")
    assert rows_of(tmp_path / "pairs.jsonl") == [
        {
            "messages": [
                {"role": "user", "content": "<image>Describe the image."},
                {"role": "assistant", "content": "A red circle."},
            ],
            "rejected_response": "A blue dog.",
            "images": [f"images/{image.sha256}.png"],
            "pair_id": "42#0",
            "prompt_id": "42",
            "chosen_reward": 2.0,
            "rejected_reward": 0.5,
        }
    ]
    [row] = rows_of(tmp_path / "demonstrations.jsonl")
    assert [turn["content"] for turn in row["messages"]] == ["<image>Why?", "It is red."]
    assert "rejected_response" not in row


def test_llava(tmp_path: Path, image: ImageRef) -> None:
    llava.write(lessons_of(image), pictures_in(tmp_path), tmp_path, "unused")
    [row] = rows_of(tmp_path / "pairs.json")
    assert row.items() >= {"id": "42#0", "image": f"images/{image.sha256}.png"}.items()
    human = {"from": "human", "value": "<image>\nDescribe the image."}
    assert row["conversations"] == [human, {"from": "gpt", "value": "A red circle."}]
    assert row["rejected_conversations"] == [human, {"from": "gpt", "value": "A blue dog."}]


def test_trl(tmp_path: Path, image: ImageRef) -> None:
    folder = tmp_path / "out"
    files = trl.write(lessons_of(image), pictures_in(folder), folder, "unused")
    assert [file.path.name for file in files] == ["pairs.parquet", "demonstrations.parquet"]
    [row] = loaded(folder / "data/pairs.parquet", "parquet", tmp_path)
    [seen] = row.pop("images")
    assert seen.tobytes() == Image.open(image.uri).tobytes()
    assert row == {
        "prompt": [{"role": "user", "content": "Describe the image."}],
        "chosen": [{"role": "assistant", "content": "A red circle."}],
        "rejected": [{"role": "assistant", "content": "A blue dog."}],
        "pair_id": "42#0",
        "prompt_id": "42",
        "chosen_reward": 2.0,
        "rejected_reward": 0.5,
        "margin": 1.5,
        "source": "csr",
        "image_sha256": image.sha256,
    }
    [row] = loaded(folder / "data/demonstrations.parquet", "parquet", tmp_path)
    assert row["completion"] == [{"role": "assistant", "content": "It is red."}]
    assert (row["kind"], row["weight"]) == ("rationale", 0.5)


@pytest.mark.parametrize("mode", ["link", "reference"])
def test_trl_names_images_that_stay_outside_by_absolute_path(
    tmp_path: Path, image: ImageRef, mode: Any
) -> None:
    folder = tmp_path / "out"
    trl.write(lessons_of(image), pictures_in(folder, mode), folder, "unused")
    [row] = loaded(folder / "data/pairs.parquet", "parquet", tmp_path)
    assert row["images"][0].tobytes() == Image.open(image.uri).tobytes()
    size = (folder / "data/pairs.parquet").stat().st_size
    Path(image.uri).unlink()
    assert size < 8_000


@pytest.mark.parametrize("module", JSON_FORMATS)
def test_hostile_texts_come_back_as_they_were(tmp_path: Path, image: ImageRef, module: Any) -> None:
    one = with_texts(pair(image=image), HOSTILE, f"yes {HOSTILE}", f"no {HOSTILE}")
    lessons = Lessons(pairs=(one, one), demonstrations=(demonstration(image, HOSTILE),))
    folder = tmp_path / "out"
    folder.mkdir()
    for file in module.write(lessons, pictures_in(folder), folder, "n"):
        rows = rows_of(file.path)
        assert len(rows) == file.num_rows
        assert loaded(file.path, "json", tmp_path) == rows
        found = json.dumps(rows, ensure_ascii=False)
        assert json.dumps(HOSTILE, ensure_ascii=False)[1:-1] in found


def test_hostile_texts_in_parquet(tmp_path: Path, image: ImageRef) -> None:
    one = with_texts(pair(image=image), f"<image>{HOSTILE}", f"yes {HOSTILE}", f"no {HOSTILE}")
    folder = tmp_path / "out"
    trl.write(Lessons(pairs=(one,), demonstrations=()), pictures_in(folder), folder, "n")
    [row] = loaded(folder / "data/pairs.parquet", "parquet", tmp_path)
    assert row["prompt"][0]["content"] == f"<image>{HOSTILE}"
    assert row["rejected"][0]["content"] == f"no {HOSTILE}"


@pytest.mark.parametrize("module", JSON_FORMATS)
def test_a_text_that_would_be_taken_for_an_image_is_left_out_and_counted(
    image: ImageRef, module: Any
) -> None:
    good = pair(image=image)
    bad = [
        with_texts(good, "What is <image>?", "a", "b"),
        with_texts(good, "What?", "an <image>", "b"),
        with_texts(good, "What?", "a", "b <image>"),
    ]
    lessons = Lessons(
        pairs=(good, *bad, with_texts(good, "What?", "same ", "same")),
        demonstrations=(demonstration(image, "<image>"), demonstration(image)),
    )
    kept = usable(lessons, module.MARKERS)
    assert kept.pairs == (good,)
    assert kept.demonstrations == (demonstration(image),)
    assert kept.left_out == {"media_marker": 4, "equal_text": 1}
    assert usable(lessons, trl.MARKERS).left_out == {"equal_text": 1}
    with pytest.raises(DataError, match=r"No row can be exported.*media_marker"):
        usable(Lessons(pairs=tuple(bad), demonstrations=()), module.MARKERS)


def test_a_reward_that_is_no_number_is_null(tmp_path: Path, image: ImageRef) -> None:
    one = pair(image=image)
    one = replace(one, rejected=replace(one.rejected, reward=float("-inf")), margin=float("inf"))
    lessons = Lessons(pairs=(one,), demonstrations=())
    ms_swift.write(lessons, pictures_in(tmp_path), tmp_path, "n")
    assert rows_of(tmp_path / "pairs.jsonl")[0]["rejected_reward"] is None
    trl.write(lessons, pictures_in(tmp_path), tmp_path, "n")
    [row] = loaded(tmp_path / "data/pairs.parquet", "parquet", tmp_path)
    assert (row["chosen_reward"], row["margin"]) == (2.0, None)


def test_many_rows_are_written_in_groups(tmp_path: Path, image: ImageRef) -> None:
    import pyarrow.parquet as pq

    pairs = tuple(pair(str(number), image) for number in range(trl.ROWS_PER_GROUP + 1))
    pictures = pictures_in(tmp_path)
    [file] = trl.write(Lessons(pairs=pairs, demonstrations=()), pictures, tmp_path, "n")
    assert pq.ParquetFile(file.path).num_row_groups == 2
    table = pq.read_table(file.path)
    assert table.column("prompt_id").to_pylist() == [str(n) for n in range(len(pairs))]
    data = table.column("images").to_pylist()[-1][0]["bytes"]
    assert Image.open(io.BytesIO(data)).size == (6, 4)
    assert pictures.count == 1
