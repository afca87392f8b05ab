import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from csr.errors import DataError
from csr.evaluation._records import read_records
from csr.evaluation.captions import Config, build, scored_sentences
from csr.types import FinishReason, GeneratedResponse
from csr.vocabulary import read_vocabulary

VOCABULARY: dict[str, Any] = {
    "objects": {"circle": ["circle", "circles"], "square": ["square"]},
    "attributes": {"colour": {"red": ["red"], "blue": ["blue"]}},
}
RECORDS: list[dict[str, Any]] = [
    {
        "id": name,
        "image": "a.png",
        "input": "Describe the image.",
        "objects": [{"name": "circle", "colour": "red"}],
    }
    for name in ("one", "two")
]


def write(folder: Path, *, records: Any = RECORDS, vocabulary: Any = VOCABULARY) -> Config:
    Image.new("RGB", (4, 4), "red").save(folder / "a.png")
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "captions.jsonl").write_text(lines, encoding="utf-8")
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    return Config(
        prompts=str(folder / "captions.jsonl"),
        images=str(folder),
        vocabulary=str(folder / "vocabulary.json"),
    )


def respond(
    prompt_id: str, text: str, finish_reason: FinishReason = FinishReason.EOS
) -> GeneratedResponse:
    token_ids = tuple(range(len(text.split()) + 1))
    return GeneratedResponse(
        prompt_id=prompt_id,
        text=text,
        token_ids=token_ids,
        token_logprobs=(-0.5,) * len(token_ids),
        finish_reason=finish_reason,
    )


def test_from_file_to_metrics(tmp_path: Path) -> None:
    benchmark = build(write(tmp_path))
    assert [prompt.prompt_id for prompt in benchmark.prompts()] == ["one", "two"]
    assert benchmark.max_response_tokens == 512
    metrics = benchmark.evaluate(
        [respond("one", "A red circle. A blue square."), respond("two", "A blue circle.")]
    )
    assert metrics["chair_s"] == 1 / 2
    assert metrics["chair_i"] == 1 / 3
    assert metrics["recall"] == 1.0
    assert metrics["colour_accuracy"] == 1 / 2
    assert metrics["sentence_accuracy"] == 1 / 3
    assert metrics["mean_response_sentences"] == 1.5
    assert metrics["mean_response_tokens"] == (7 + 4) / 2
    assert metrics["truncated_share"] == 0.0
    assert metrics["num_captions"] == 2


def test_without_vocabulary_lengths_and_diversity_remain(tmp_path: Path) -> None:
    bare = [{key: record[key] for key in ("id", "image", "input")} for record in RECORDS]
    config = write(tmp_path, records=bare).model_copy(update={"vocabulary": None})
    metrics = build(config).evaluate([respond("one", "A cat."), respond("two", "")])
    assert metrics["mean_response_sentences"] == 0.5
    assert metrics["empty_share"] == 0.5
    assert "chair_s" not in metrics


def test_max_prompts_takes_the_first(tmp_path: Path) -> None:
    config = write(tmp_path).model_copy(update={"max_prompts": 1})
    assert [prompt.prompt_id for prompt in build(config).prompts()] == ["one"]


def test_a_sentence_cut_by_the_limit_is_not_scored(tmp_path: Path) -> None:
    cut = respond("one", "A red circle. A blue square", FinishReason.LENGTH)
    assert [s.strip() for s in scored_sentences(cut, drop_unfinished=True)] == ["A red circle."]
    assert len(scored_sentences(cut, drop_unfinished=False)) == 2
    whole = respond("one", "A red circle. A blue square.", FinishReason.LENGTH)
    assert len(scored_sentences(whole, drop_unfinished=True)) == 2
    assert scored_sentences(respond("one", " ... \n"), drop_unfinished=True) == []
    ended = respond("one", "A red circle. A blue square", FinishReason.EOS)
    assert len(scored_sentences(ended, drop_unfinished=True)) == 2

    metrics = build(write(tmp_path)).evaluate([cut, respond("two", "A red circle.")])
    assert metrics["chair_s"] == 0.0
    assert metrics["truncated_share"] == 0.5


def test_unique_numerator_reaches_the_scorer(tmp_path: Path) -> None:
    config = write(tmp_path)
    responses = [respond("one", "A square. A square."), respond("two", "A circle.")]
    assert build(config).evaluate(responses)["chair_i"] == 2 / 3
    once = config.model_copy(update={"unique_numerator": True})
    assert build(once).evaluate(responses)["chair_i"] == 1 / 3


def test_ground_truth_must_be_there_with_a_vocabulary(tmp_path: Path) -> None:
    bare = [{key: record[key] for key in ("id", "image", "input")} for record in RECORDS]
    with pytest.raises(DataError, match=r"'one'.*'objects' must list.*leave out `vocabulary`"):
        build(write(tmp_path, records=bare)).prompts()


def test_ground_truth_outside_the_vocabulary_is_named(tmp_path: Path) -> None:
    odd = [{**RECORDS[0], "objects": [{"name": "circle", "colour": "puce"}]}]
    with pytest.raises(DataError, match=r"'colour' is 'puce'.*Known: blue, red"):
        build(write(tmp_path, records=odd)).prompts()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("{", r"line 1: not valid JSON"),
        ("[1]", r"record 1: a record must be an object, not int"),
        ("1", r"line 1: a record must be an object, not int"),
        ('{"id": "a", "image": "x.png"}', r"line 1: 'input' is missing"),
        ('{"id": "a", "image": "", "input": "b"}', r"line 1: 'image' is blank"),
        (
            '{"id": 1, "image": "x", "input": "b"}\n\n{"id": "1", "image": "x", "input": "b"}',
            r"line 3: the id '1' was used in .*line 1 already",
        ),
        ('[{"id": 1, "image": "x", "input": "b"}, 2]', r"record 2: a record must be an object"),
        ('{"id": "a", "image": "x.png", "input": "<image>"}', "only an image marker"),
    ],
)
def test_malformed_records_are_named_by_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_records(path)


def test_a_line_separator_inside_text_does_not_end_a_record(tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text('{"id": "a", "image": "x", "input": "one\u2028two"}\n', encoding="utf-8")
    assert read_records(path)[0]["input"] == "one\u2028two"


def test_a_json_list_and_image_markers_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    record = {"id": 42, "image": "x.jpg", "input": "<image>\nDescribe the image.", "extra": 1}
    path.write_text(json.dumps([record]), encoding="utf-8")
    expected = {"id": "42", "image": "x.jpg", "input": "Describe the image.", "extra": 1}
    assert read_records(path) == [expected]


def test_missing_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jsonl does not exist"):
        read_records(tmp_path / "gone.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        read_records(tmp_path / "binary.jsonl")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "not of the form"),
        ({"attributes": {}}, "not of the form"),
        ({"objects": ["dog"]}, "'objects': not a mapping"),
        ({"objects": {"dog": "dog"}}, "'dog' must be a list"),
        ({"objects": {"dog": [""]}}, "'dog' must be a list"),
        ({"objects": {"dog": ["Pet"], "cat": ["pet"]}}, "listed for both 'dog' and 'cat'"),
        ({"objects": {"dog": ["dog"]}, "attributes": {"colour": 3}}, "'colour': not a mapping"),
    ],
)
def test_malformed_vocabularies_are_explained(tmp_path: Path, document: Any, message: str) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_vocabulary(path)


def test_importing_the_benchmarks_loads_no_engine() -> None:
    code = (
        "import sys, csr.evaluation.captions, csr.evaluation.pope; "
        "print({'torch', 'transformers', 'vllm', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
