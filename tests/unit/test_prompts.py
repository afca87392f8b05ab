"""Prompt files as users have them, good and bad."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csr import prompt_images
from csr.errors import ConfigError, DataError
from csr.prompts import load_prompts, select_prompts
from csr.records import BadRecordError
from csr.types import Prompt, SkipReason
from tests.sample_data import prompt, saved_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image folder with a good image, a copy of it, and a damaged one."""
    root = tmp_path / "images"
    root.mkdir()
    saved_image(root / "a.png")
    saved_image(root / "b.png", (0, 0, 255))
    (root / "broken.png").write_bytes((root / "a.png").read_bytes()[:50])
    return root


def record(**changes: object) -> dict[str, object]:
    return {"id": "1", "image": "a.png", "input": "What is this?"} | changes


def written(folder: Path, text: str) -> Path:
    path = folder.parent / "prompts.data"
    path.write_text(text, encoding="utf-8")
    return path


def listed(folder: Path, *records: object) -> Path:
    return written(folder, json.dumps(records))


def test_csr_list_with_markers_at_either_end(folder):
    path = listed(
        folder,
        record(id="000000442786", input="What do you see happening in this image?\n<image>"),
        record(id=7, image="b.png", input="<image>\nDescribe the image."),
    )
    loaded = load_prompts(path, folder)
    assert [p.text for p in loaded.prompts] == [
        "What do you see happening in this image?",
        "Describe the image.",
    ]
    assert [p.prompt_id for p in loaded.prompts] == ["000000442786", "7"]
    assert [p.image.uri for p in loaded.prompts] == [str(folder / "a.png"), str(folder / "b.png")]
    assert loaded.skipped == {}
    assert loaded.bad_records == ()


def test_json_lines_with_optional_fields_blank_lines_and_a_byte_order_mark(folder):
    first = json.dumps(record(reference="A square.", dataset="shapes"))
    path = written(folder, f"\ufeff{first}\r\n\n{json.dumps(record(id=2))}\n")
    one, two = load_prompts(path, folder).prompts
    assert (one.reference, one.dataset) == ("A square.", "shapes")
    assert (two.reference, two.dataset) == (None, "")


def test_each_distinct_image_is_read_once_and_progress_counts_prompts(folder, monkeypatch):
    path = listed(folder, record(id=1), record(id=2), record(id=3, image="b.png"))
    read = []

    def counting(image, *, root):
        read.append(image)
        return original(image, root=root)

    original = prompt_images.sized_image_ref
    monkeypatch.setattr(prompt_images, "sized_image_ref", counting)
    seen = []
    load_prompts(path, folder, progress=lambda done, total: seen.append((done, total)))
    assert read == [Path("a.png"), Path("b.png")]
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("[]", "is empty"),
        ("[ \n]", "is empty"),
        ("[{]", r"not valid JSON"),
        ('{"id": 1, "image": "a.png", "input": "x"}\n{"id": 2', r"line 2: not valid JSON"),
        ('{\n"id": 1,\n', r"line 1: not valid JSON"),
        ("[" * 100_000, r"not valid JSON"),
        ("[" + "9" * 5000 + "]", r"not valid JSON"),
        ("[1]", r"record 1: a record must be an object, not int"),
        ("42", r"line 1: a record must be an object, not int"),
    ],
)
def test_file_that_is_no_prompt_file(folder, text, problem):
    with pytest.raises(DataError, match=problem):
        load_prompts(written(folder, text), folder)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"id": None}, "'id' is NoneType, and must be text or a whole number"),
        ({"id": True}, "'id' is bool"),
        ({"id": 1.5}, "'id' is float"),
        ({"id": " "}, "'id' is blank"),
        ({"image": 3}, "'image' is int, and must be text"),
        ({"image": ["a.png"]}, "'image' is list"),
        ({"input": ""}, "'input' is blank"),
        ({"input": "<image>\n"}, "only an image marker"),
        ({"input": "Look at <image> and say."}, "inside the text"),
        ({"input": "<image>\n<image>\nCompare."}, "inside the text"),
        ({"input": "<image>\nDescribe.\n<image>"}, "inside the text"),
        ({"input": "a\x00b"}, "NUL"),
        ({"input": "a\ud800b"}, "surrogate"),
        ({"input": "x" * 8193}, "8,193 characters, and at most 8,192"),
        ({"reference": 5}, "'reference' is int"),
        ({"reference": []}, "'reference' is list"),
        ({"prompt": "x"}, "unknown keys 'prompt'\\. A record"),
        (dict.fromkeys("cdabe"), r"unknown keys 'a', 'b', 'c', \.\.\."),
        ({"image": "no.png"}, "does not exist"),
        ({"image": "broken.png"}, "damaged"),
        ({"image": "../prompts.data"}, "outside the image folder"),
    ],
)
def test_bad_record_is_named_by_its_place(folder, changes, problem):
    path = listed(folder, record(id="good"), record(**changes))
    with pytest.raises(DataError, match=problem) as caught:
        load_prompts(path, folder)
    assert f"{path}, record 2" in str(caught.value)


def test_missing_key_is_said_to_be_missing(folder):
    path = written(folder, json.dumps({"id": 1, "image": "a.png"}))
    with pytest.raises(DataError, match="line 1: 'input' is missing"):
        load_prompts(path, folder)


def test_a_misnamed_key_is_asked_after(folder):
    path = written(folder, json.dumps({"id": 1, "image": "a.png", "text": "Describe."}))
    with pytest.raises(DataError, match=r"line 1: 'input' is missing; is it 'text'\? Rename it\."):
        load_prompts(path, folder)


def test_duplicate_ids_are_named_even_as_number_and_text(folder):
    path = listed(folder, record(id=42), record(id="x"), record(id="42"))
    with pytest.raises(DataError, match=r"record 3: the id '42' stands already in .*record 1\."):
        load_prompts(path, folder)


def test_a_key_that_stands_twice_spoils_its_own_record(folder):
    path = written(folder, '[{"id": 1, "id": 2, "image": "a.png", "input": "x"}]')
    with pytest.raises(DataError, match=r"record 1: the key 'id' stands twice"):
        load_prompts(path, folder)


def test_missing_places_are_told_apart(folder, tmp_path):
    path = listed(folder, record())
    with pytest.raises(DataError, match=r"none\.json does not exist"):
        load_prompts(tmp_path / "none.json", folder)
    with pytest.raises(DataError, match="is no file"):
        load_prompts(tmp_path, folder)
    with pytest.raises(DataError, match="is no file"):
        load_prompts(Path("/dev/zero"), folder)
    with pytest.raises(DataError, match=r"image folder .* does not exist"):
        load_prompts(path, tmp_path / "none")
    path.write_bytes(b'[{"id": "\xff\xfe"}]')
    with pytest.raises(DataError, match="not UTF-8"):
        load_prompts(path, folder)


def test_bad_records_are_left_out_each_with_its_reason(folder):
    lines = [
        json.dumps(record(id=1)),
        json.dumps(record(id=2, image="broken.png")),
        '{"id": 3, "image": "a.png"',
        json.dumps(record(id=1, image="b.png")),
        json.dumps(record(id=4, input=None)),
        "",
        json.dumps(record(id=5, image="no.png")),
        json.dumps(record(id="a\ud800", image=7)),
        json.dumps(record(id=6, image="b.png")),
    ]
    path = written(folder, "\n".join(lines))
    loaded = load_prompts(path, folder, on_bad_record="skip", max_bad_share=1.0)
    assert [p.prompt_id for p in loaded.prompts] == ["1", "6"]
    assert loaded.skipped == {
        SkipReason.UNREADABLE_IMAGE: 2,
        SkipReason.INVALID_JSON: 1,
        SkipReason.DUPLICATE_ID: 1,
        SkipReason.INVALID_RECORD: 2,
    }
    assert [(bad.position, bad.prompt_id, bad.image) for bad in loaded.bad_records] == [
        (2, "2", "broken.png"),
        (3, None, None),
        (4, "1", "b.png"),
        (5, "4", "a.png"),
        (7, "5", "no.png"),
        (8, "a\\ud800", "7"),
    ]
    words = ["damaged", "not valid JSON", "line 1", "NoneType", "does not exist", "surrogate"]
    for bad, word in zip(loaded.bad_records, words, strict=True):
        assert word in bad.message
        assert f"line {bad.position}" in bad.message


def test_an_id_belongs_to_the_first_well_formed_record(folder):
    path = listed(folder, record(id=1, input=""), record(id=1), record(id=1, image="b.png"))
    loaded = load_prompts(path, folder, on_bad_record="skip", max_bad_share=1.0)
    assert [p.image.uri for p in loaded.prompts] == [str(folder / "a.png")]
    assert [bad.reason for bad in loaded.bad_records] == [
        SkipReason.INVALID_RECORD,
        SkipReason.DUPLICATE_ID,
    ]


def test_the_share_of_bad_records_decides(folder):
    good = [record(id=number) for number in range(8)]
    path = listed(folder, *good, record(id="x", image="no.png"), record(id="y", input=3))
    assert len(load_prompts(path, folder, on_bad_record="skip", max_bad_share=0.2).prompts) == 8
    with pytest.raises(DataError) as caught:
        load_prompts(path, folder, on_bad_record="skip", max_bad_share=0.19)
    message = str(caught.value)
    assert "2 of 10 records cannot be used, more than the share of 0.19" in message
    assert "(invalid_record 1, unreadable_image 1)" in message
    assert "record 9 (id 'x')" in message
    assert "record 10: 'input' is int" in message


def test_an_error_quotes_the_first_three_bad_records_only(folder):
    path = listed(folder, *(record(id=number, input=number) for number in range(9)))
    with pytest.raises(DataError, match="none of the 9 records can be used") as caught:
        load_prompts(path, folder, on_bad_record="skip", max_bad_share=1.0)
    assert str(caught.value).count("must be text") == 3
    assert len(str(caught.value)) < 1000


def chosen_ids(prompts: list[Prompt], iteration: int, num: int, mode: str) -> list[str]:
    return [p.prompt_id for p in select_prompts(prompts, iteration, num, mode)]


def test_fresh_prompts_go_round_and_same_prompts_stay():
    five = [prompt(str(number)) for number in range(5)]
    assert chosen_ids(five, 1, 2, "fresh") == ["0", "1"]
    assert chosen_ids(five, 2, 2, "fresh") == ["2", "3"]
    assert chosen_ids(five, 3, 2, "fresh") == ["4", "0"]
    assert chosen_ids(five, 3, 2, "same") == ["0", "1"]
    assert chosen_ids(five, 2, 9, "fresh") == ["0", "1", "2", "3", "4"]
    with pytest.raises(ConfigError, match="0 prompts"):
        select_prompts(five, 1, 0, "fresh")


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 6))
def test_no_iteration_sees_a_prompt_twice_and_fresh_reaches_all(count, num, rounds):
    prompts = [prompt(str(number)) for number in range(count)]
    seen = []
    for iteration in range(1, rounds + 1):
        ids = chosen_ids(prompts, iteration, num, "fresh")
        assert len(ids) == len(set(ids)) == min(num, count)
        seen += ids
    assert len(set(seen)) == min(count, rounds * min(num, count))


def test_a_samplers_own_test_sets_records_aside_with_its_reason(folder):
    seen = []

    def check(prompt, size):
        seen.append((prompt.prompt_id, size))
        if prompt.text == "long":
            raise BadRecordError("it is too long.", SkipReason.PROMPT_TOO_LONG)

    path = listed(folder, record(id=1), record(id=2, input="long"), record(id=3, image="no.png"))
    with pytest.raises(DataError, match=r"record 2 \(id '2'\): it is too long"):
        load_prompts(path, folder, check=check)
    loaded = load_prompts(path, folder, check=check, on_bad_record="skip", max_bad_share=0.7)
    assert [p.prompt_id for p in loaded.prompts] == ["1"]
    assert loaded.skipped == {SkipReason.PROMPT_TOO_LONG: 1, SkipReason.UNREADABLE_IMAGE: 1}
    assert seen[-2:] == [("1", (6, 4)), ("2", (6, 4))]
