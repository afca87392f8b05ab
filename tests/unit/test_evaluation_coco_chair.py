"""CHAIR on COCO's files: the arithmetic is worked out in tests/coco_files.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from csr.errors import DataError
from csr.evaluation._coco_files import read_coco
from csr.evaluation.coco_chair import CocoChairBenchmark, Config, build
from csr.intervals import confidence_intervals
from csr.outcomes import by_metric
from csr.response_files import ReadsResponses, read_responses
from csr.types import FinishReason, GeneratedResponse
from tests.coco_files import CAPTIONS, write_coco


def response(prompt_id: str, text: str, *, cut: bool = False) -> GeneratedResponse:
    return GeneratedResponse(
        prompt_id=prompt_id,
        text=text,
        token_ids=(1, 2, 3),
        token_logprobs=(-0.1, -0.2, -0.3),
        finish_reason=FinishReason.LENGTH if cut else FinishReason.EOS,
    )


def benchmark(folder: Path, **settings: Any) -> CocoChairBenchmark:
    annotations = write_coco(folder)
    return build(Config(annotations=str(annotations), images=str(folder / "images"), **settings))


def answers(asked: CocoChairBenchmark) -> list[GeneratedResponse]:
    return [response(name, CAPTIONS[int(name)]) for name in asked.prompt_ids()]


def test_prompts_are_the_images_in_the_order_of_their_ids(tmp_path: Path) -> None:
    prompts = benchmark(tmp_path).prompts()
    assert [prompt.prompt_id for prompt in prompts] == ["9", "42", "139"]
    assert prompts[1].image.uri.endswith("COCO_val2014_000000000042.jpg")
    assert {prompt.text for prompt in prompts} == {"Please describe this image in detail."}


def test_chair_of_three_captions(tmp_path: Path) -> None:
    asked = benchmark(tmp_path)
    metrics = asked.evaluate(answers(asked))
    assert metrics["chair_s"] == pytest.approx(2 / 3)  # 42 and 139
    assert metrics["num_object_mentions"] == 9  # 4 + 4 + 1
    assert metrics["num_hallucinated_mentions"] == 4  # cat, couch; dog, dog
    assert metrics["chair_i"] == pytest.approx(4 / 9)
    # recalled: 42 dog of {dog, chair}; 139 both of {chair, person}; 9 person of {person, hot dog}
    assert metrics["recall"] == pytest.approx(4 / 6)
    assert metrics["mean_present_objects"] == 2
    assert metrics["mean_response_tokens"] == 3


def test_the_variant_counts_a_hallucinated_object_once(tmp_path: Path) -> None:
    asked = benchmark(tmp_path, unique_numerator=True)
    metrics = asked.evaluate(answers(asked))
    assert metrics["chair_i"] == pytest.approx(3 / 9)  # cat, couch; dog
    assert metrics["chair_s"] == pytest.approx(2 / 3)


def test_a_sentence_that_the_limit_cut_is_left_out(tmp_path: Path) -> None:
    said = [response("9", "A woman eats. A ca", cut=True), response("42", ""), response("139", "")]
    assert benchmark(tmp_path).evaluate(said)["num_object_mentions"] == 1
    said[0] = response("9", "A woman eats. A car", cut=True)
    whole = benchmark(tmp_path, drop_unfinished_sentence=False)
    assert whole.evaluate(said)["num_object_mentions"] == 2


def test_outcomes_add_up_to_the_figures(tmp_path: Path) -> None:
    asked = benchmark(tmp_path)
    metrics, outcomes = asked.evaluate(answers(asked)), asked.outcomes(answers(asked))
    for name, group in by_metric(outcomes).items():
        ratio = sum(o.numerator for o in group) / sum(o.denominator for o in group)
        assert ratio == pytest.approx(metrics[name]), name
    assert set(by_metric(outcomes)) >= {"chair_s", "chair_i", "recall", "mean_response_tokens"}
    assert confidence_intervals(outcomes)["chair_s"].method == "wilson"


def test_captions_go_out_and_come_in_as_coco_writes_them(tmp_path: Path) -> None:
    asked = benchmark(tmp_path)
    assert isinstance(asked, ReadsResponses)
    records = asked.response_records(answers(asked))
    assert records[0] == {"image_id": 9, "caption": "A woman eats."}
    path = tmp_path / "captions.json"
    path.write_text(json.dumps([*reversed(records), {"image_id": 7, "caption": "?"}]))
    read = read_responses(path, asked.response_fields, asked.prompt_ids())
    assert (read.num_missing, read.num_unknown) == (0, 1)
    metrics = asked.evaluate(read.responses)
    assert metrics["chair_i"] == pytest.approx(4 / 9)
    assert "mean_response_tokens" not in metrics  # a file holds no tokens
    assert "mean_response_tokens" not in by_metric(asked.outcomes(read.responses))


def test_false_words_are_those_that_chair_counts(tmp_path: Path) -> None:
    asked = benchmark(tmp_path)
    said = answers(asked)
    marks = asked.false_mentions(said)
    found = [[r.text[m.start : m.end] for m in each] for r, each in zip(said, marks, strict=True)]
    assert found == [[], ["cat", "couch"], ["dog", "dog"]]
    assert sum(map(len, marks)) == asked.evaluate(said)["num_hallucinated_mentions"]


def test_a_part_can_be_asked(tmp_path: Path) -> None:
    asked = benchmark(tmp_path)
    asked.keep(["42"])
    assert asked.prompt_ids() == ["42"]
    assert asked.evaluate([response("42", "A cat.")])["chair_s"] == 1.0


@pytest.mark.parametrize(
    "text",
    ["42\n9\n", "[42, 9]", "# my list\nCOCO_val2014_000000000042.jpg\n000000000009", '["42", "9"]'],
)
def test_a_list_of_images(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ids"
    path.write_text(text)
    assert benchmark(tmp_path, image_ids=str(path)).prompt_ids() == ["9", "42"]


def test_listed_images_of_train_are_read_from_train(tmp_path: Path) -> None:
    write_coco(tmp_path, (139,), "train")
    annotations = write_coco(tmp_path, (42, 9))
    path = tmp_path / "ids"
    path.write_text("42\n139\n")
    images = str(tmp_path / "images")
    asked = build(Config(annotations=str(annotations), images=images, image_ids=str(path)))
    assert asked.prompt_ids() == ["42", "139"]
    assert "train2014" in asked.prompts()[1].image.uri


def test_images_may_lie_in_the_folders_of_their_sets(tmp_path: Path) -> None:
    asked = benchmark(tmp_path)
    images = tmp_path / "images"
    (images / "val2014").mkdir()
    for file in images.glob("*.jpg"):
        file.rename(images / "val2014" / file.name)
    assert len(asked.prompts()) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("42\n7\n", "1 of 2 listed images in neither val2014 nor train2014, such as 7"),
        ("42\n42\n", "names the image '42' twice"),
        ("", "names no image"),
        ("cat\n", "'cat' is no COCO image id"),
        ("[42, {}]", "is no image id"),
        ("[42", "is no JSON list of image ids"),
    ],
)
def test_a_list_that_cannot_work_is_explained(tmp_path: Path, text: str, message: str) -> None:
    write_coco(tmp_path, (139,), "train")
    path = tmp_path / "ids"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        benchmark(tmp_path, image_ids=str(path)).prompt_ids()


def test_files_that_are_not_cocos_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"instances_val2014\.json does not exist"):
        read_coco(tmp_path, 2014, None)
    annotations = write_coco(tmp_path, categories=[{"id": "1", "name": "dog"}])
    with pytest.raises(DataError, match="'categories' must list objects with id, name"):
        read_coco(annotations, 2014, None)
    write_coco(tmp_path, annotations=[{"image_id": 42, "category_id": 5}])
    with pytest.raises(DataError, match="the class 5 is not among its categories"):
        read_coco(annotations, 2014, None)
    write_coco(tmp_path)
    (annotations / "captions_val2014.json").write_text('{"annotations": []}')
    with pytest.raises(DataError, match="has no caption of 3 of 3 images"):
        read_coco(annotations, 2014, None)
    (annotations / "captions_val2014.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_coco(annotations, 2014, None)


def test_a_class_without_a_line_in_the_table_is_explained(tmp_path: Path) -> None:
    categories = [{"id": n, "name": f"thing {n}"} for n in (1, 18, 62, 58)]
    annotations = write_coco(tmp_path, categories=categories)
    asked = build(Config(annotations=str(annotations), images=str(tmp_path / "images")))
    with pytest.raises(DataError, match="no line for COCO's 'thing 1'"):
        asked.evaluate(answers(asked))
