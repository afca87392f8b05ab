"""LLaVA's conversations and COCO's annotations; what is told apart, and what is left out."""

import json
from pathlib import Path
from typing import Any

import pytest

from csr.errors import ConfigError, DataError
from csr.types import SkipReason
from tests.data_formats import picture, read, samples, write_coco, write_files


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_files(tmp_path / "images", samples(4))


def turn(speaker: str, value: object) -> dict[str, object]:
    return {"from": speaker, "value": value}


def conversation(**changes: object) -> dict[str, object]:
    turns = [turn("human", "<image>\nWhat is this?"), turn("gpt", "A square.")]
    return {"id": "1", "image": "s1.png", "conversations": turns} | changes


def written(folder: Path, *records: object) -> Path:
    path = folder / "llava.json"
    path.write_text(json.dumps(records, indent=1))
    return path


# ---------------------------------------------------------------- LLaVA


def test_a_single_turn(images: Path, tmp_path: Path) -> None:
    path = written(tmp_path, conversation(model="gpt-4"), conversation(id=2, image="s2.png"))
    loaded = read(path, images=str(images))
    assert [(p.prompt_id, p.text, p.reference) for p in loaded.prompts] == [
        ("1", "What is this?", "A square."),
        ("2", "What is this?", "A square."),
    ]
    assert loaded.prompts[1].image.uri == str(images / "s2.png")
    lines = tmp_path / "llava.jsonl"
    lines.write_text("\n".join(map(json.dumps, json.loads(path.read_text()))))
    assert read(lines, images=str(images)).prompts == loaded.prompts


def test_later_turns_are_counted_and_stop_nothing(images: Path, tmp_path: Path) -> None:
    turns = [
        turn("human", "What is this?\n<image>"),
        turn("gpt", "A square."),
        turn("human", "Which colour?"),
        turn("gpt", "Blue."),
        turn("human", "Why?"),
    ]
    path = written(tmp_path, conversation(conversations=turns), conversation(id=2))
    loaded = read(path, images=str(images), on_bad_record="error")
    assert [(p.prompt_id, p.text) for p in loaded.prompts] == [
        ("1", "What is this?"),
        ("2", "What is this?"),
    ]
    assert loaded.skipped == {SkipReason.LATER_TURN: 2}
    assert [(bad.position, bad.prompt_id) for bad in loaded.bad_records] == [(1, "1"), (1, "1")]
    assert "record 1, turn 3" in loaded.bad_records[0].message
    assert "record 1, turn 5" in loaded.bad_records[1].message


def test_records_of_text_alone_are_counted_and_stop_nothing(images: Path, tmp_path: Path) -> None:
    text_alone = {key: value for key, value in conversation(id=2).items() if key != "image"}
    loaded = read(written(tmp_path, conversation(), text_alone), images=str(images))
    assert len(loaded.prompts) == 1
    assert loaded.skipped == {SkipReason.NO_IMAGE: 1}
    with pytest.raises(DataError, match=r"none of the 1 records can be used \(no_image 1\)"):
        read(written(tmp_path, text_alone), images=str(images))


def test_ids_that_name_images_are_told_apart(images: Path, tmp_path: Path) -> None:
    path = written(tmp_path, *[conversation(id="000000033471")] * 3)
    loaded = read(path, images=str(images))
    assert [p.prompt_id for p in loaded.prompts] == [
        "000000033471", "000000033471@2", "000000033471@3",
    ]  # fmt: skip


def test_an_answer_that_is_missing_is_no_reference(images: Path, tmp_path: Path) -> None:
    path = written(tmp_path, conversation(conversations=[turn("human", "What?")]))
    assert read(path, images=str(images)).prompts[0].reference is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conversations": None}, "must be a list of turns"),
        ({"conversations": []}, "must be a list of turns"),
        ({"conversations": {"from": "human"}}, "must be a list of turns"),
        ({"conversations": ["hello"]}, "a turn must be an object"),
        ({"conversations": [turn("gpt", "A square.")]}, 'not from "human"'),
        ({"conversations": [{"from": "human"}]}, "'input' is NoneType"),
        ({"conversations": [turn("human", 7)]}, "'input' is int"),
        ({"conversations": [turn("human", "<image><image>")]}, "inside the text"),
        ({"conversations": [turn("human", "What?"), turn("gpt", ["A"])]}, "'reference' is list"),
        ({"id": None}, "'id' is NoneType"),
        ({"image": ["s1.png", "s2.png"]}, "'image' is list"),
    ],
)
def test_a_bad_conversation_spoils_itself_alone(
    images: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = written(tmp_path, conversation(id="good"), conversation(**changes))
    loaded = read(path, images=str(images))
    assert [p.prompt_id for p in loaded.prompts] == ["good"]
    (bad,) = loaded.bad_records
    assert bad.reason == SkipReason.INVALID_RECORD
    assert words in bad.message
    assert "record 2" in bad.message
    with pytest.raises(DataError, match="record 2"):
        read(path, images=str(images), on_bad_record="error")


def test_a_question_about_conversations_is_no_conversation(images: Path, tmp_path: Path) -> None:
    record = {"id": 1, "image": "s1.png", "input": 'Is "conversations": [ a key?'}
    path = written(tmp_path, record)
    assert read(path, images=str(images)).prompts[0].text == 'Is "conversations": [ a key?'
    with pytest.raises(DataError, match="unknown keys 'conversations'"):
        read(written(tmp_path, conversation()), images=str(images), format="csr",
             on_bad_record="error")  # fmt: skip


def test_several_files_of_one_form(images: Path, tmp_path: Path) -> None:
    for number in range(2):
        record = {"id": number, "image": f"s{number}.png", "input": "What?"}
        (tmp_path / f"part-{number}.jsonl").write_text(f"\n{json.dumps(record)}\n{{")
    loaded = read(tmp_path / "part-*.jsonl", images=str(images))
    assert [p.prompt_id for p in loaded.prompts] == ["0", "1"]
    assert [(bad.position, bad.reason) for bad in loaded.bad_records] == [
        (3, SkipReason.INVALID_JSON),
        (3, SkipReason.INVALID_JSON),
    ]
    with pytest.raises(DataError, match=r"no file matches .*none-\*\.jsonl"):
        read(tmp_path / "none-*.jsonl", images=str(images))


def test_a_file_whose_name_looks_like_a_pattern(images: Path, tmp_path: Path) -> None:
    for name in ("what?.jsonl", "whatx.jsonl", "a[1]*.jsonl"):
        record = {"id": name, "image": "s0.png", "input": "What?"}
        (tmp_path / name).write_text(json.dumps(record))
    for name in ("what?.jsonl", "a[1]*.jsonl"):
        loaded = read(tmp_path / name, images=str(images))
        assert [p.prompt_id for p in loaded.prompts] == [name]


# ---------------------------------------------------------------- COCO


def test_coco_as_it_is_unpacked(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "coco", 3)
    loaded = read(folder, instruction="Describe the image.")
    assert [(p.prompt_id, p.text, p.reference) for p in loaded.prompts] == [
        (str(n), "Describe the image.", f"Caption of {n}.") for n in (1, 2, 3)
    ]
    assert loaded.prompts[0].image.uri == str(
        folder / "train2014" / "COCO_train2014_000000000001.jpg"
    )
    assert loaded.kept_images == ()
    named = read(folder / "annotations" / "captions_train2014.json", instruction="Describe.")
    assert [p.image for p in named.prompts] == [p.image for p in loaded.prompts]


def test_coco_images_elsewhere(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "coco", 2)
    (tmp_path / "disk" / "images").mkdir(parents=True)
    (folder / "train2014").rename(tmp_path / "disk" / "images" / "train2014")
    for images in (tmp_path / "disk", tmp_path / "disk/images", tmp_path / "disk/images/train2014"):
        assert len(read(folder, images=str(images), instruction="Describe.").prompts) == 2


def test_coco_asks_for_an_instruction_and_one_split(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "coco", 1)
    with pytest.raises(ConfigError, match=r"Say in data\.instruction"):
        read(folder)
    write_coco(folder, 1, "val2014")
    with pytest.raises(DataError, match=r"\(captions_train2014\.json, captions_val2014\.json\)"):
        read(folder, instruction="Describe.")
    val = read(folder / "annotations" / "captions_val2014.json", instruction="Describe.")
    assert Path(val.prompts[0].image.uri).name == "COCO_val2014_000000000001.jpg"


@pytest.mark.parametrize(
    ("image", "reason", "words"),
    [
        (7, SkipReason.INVALID_RECORD, "must be an object"),
        ({"id": 9}, SkipReason.INVALID_RECORD, "`file_name`"),
        ({"id": "", "file_name": "x"}, SkipReason.INVALID_RECORD, "'id' is blank"),
        ({"file_name": "x.jpg"}, SkipReason.INVALID_RECORD, "'id' is NoneType"),
        ({"id": 1, "file_name": "x.jpg"}, SkipReason.DUPLICATE_ID, "stands already"),
        ({"id": 9, "file_name": "../../out.png"}, SkipReason.UNREADABLE_IMAGE, "outside"),
        ({"id": 9, "file_name": "none.jpg"}, SkipReason.UNREADABLE_IMAGE, "does not exist"),
    ],
)
def test_a_bad_image_of_coco_spoils_itself_alone(
    tmp_path: Path, image: Any, reason: SkipReason, words: str
) -> None:
    folder = write_coco(tmp_path / "coco", 2)
    (tmp_path / "out.png").write_bytes(picture(5))
    path = folder / "annotations" / "captions_train2014.json"
    value = json.loads(path.read_text())
    value["images"].append(image)
    value["annotations"] += [3, {"image_id": 1}, {"image_id": [], "id": {}}]
    path.write_text(json.dumps(value))
    loaded = read(folder, instruction="Describe.")
    assert [p.prompt_id for p in loaded.prompts] == ["1", "2"]
    (bad,) = loaded.bad_records
    assert (bad.position, bad.reason) == (3, reason)
    assert words in bad.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("[]", "no list 'images'"),
        ('{"images": []}', "no list 'annotations'"),
        ('{"images": [], "annotations": []}', "names no images"),
        ('{"images": 1, "images": 2}', "no list 'images'"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_what_is_no_captions_file(tmp_path: Path, text: str, words: str) -> None:
    folder = write_coco(tmp_path / "coco", 1)
    (folder / "annotations" / "captions_train2014.json").write_text(text)
    with pytest.raises(DataError, match=words):
        read(folder, instruction="Describe.")
