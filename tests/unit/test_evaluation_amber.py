"""AMBER's figures on three images and six questions, counted by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from csr.errors import DataError
from csr.evaluation._amber_files import read_amber, read_queries
from csr.evaluation._amber_words import AmberWords
from csr.evaluation.amber import AmberBenchmark, build
from csr.intervals import confidence_intervals
from csr.response_files import read_responses
from csr.types import FinishReason, GeneratedResponse
from tests.amber_files import SAID, write_amber


def responses(asked: AmberBenchmark, **changes: str) -> list[GeneratedResponse]:
    said = {str(n): text for n, text in SAID.items()} | changes
    return [
        GeneratedResponse(
            prompt_id=name, text=said[name], token_ids=(1,), token_logprobs=(-0.1,),
            finish_reason=FinishReason.EOS,
        )
        for name in asked.prompt_ids()
    ]  # fmt: skip


def test_the_generative_task(tmp_path: Path) -> None:
    asked = build(write_amber(tmp_path))
    metrics = asked.evaluate(responses(asked))
    assert metrics["amber_chair"] == pytest.approx(2 / (8 + 0.001))  # starts at 0.001
    assert metrics["amber_cover"] == pytest.approx((3 + 1 + 0) / (3 + 2 + 1))
    assert metrics["amber_hal"] == pytest.approx(1 / 3)
    assert metrics["amber_cog"] == pytest.approx((1 + 0 + 0) / (2 + 1 + 2))
    assert metrics["amber_num_descriptions"] == 3


def test_false_words_are_those_that_the_script_counts(tmp_path: Path) -> None:
    asked = build(write_amber(tmp_path))
    said = responses(asked)
    marks = asked.false_mentions(said)
    found = [
        each and [r.text[m.start : m.end] for m in each]
        for r, each in zip(said, marks, strict=True)
    ]
    assert found == [["sun", "bird"], [], [], *[None] * 6]  # of yes and no nobody can tell


def test_the_discriminative_task_by_kind(tmp_path: Path) -> None:
    asked = build(write_amber(tmp_path))
    metrics = asked.evaluate(responses(asked))
    assert metrics["amber_accuracy"] == pytest.approx(3 / (6 + 0.001))
    # "no" is positive: said no to 4, 7, 9; it is no at 4, 6, 9
    assert metrics["amber_precision"] == pytest.approx(2 / 3)
    assert metrics["amber_recall"] == pytest.approx(2 / 3)
    assert metrics["amber_f1"] == pytest.approx(2 / 3)
    assert metrics["amber_existence_accuracy"] == 1.0
    assert metrics["amber_attribute_accuracy"] == pytest.approx(1 / 3)
    assert metrics["amber_state_accuracy"] == 1.0
    assert metrics["amber_number_accuracy"] == metrics["amber_action_accuracy"] == 0.0
    assert metrics["amber_relation_accuracy"] == 0.5  # both types of annotation count
    assert metrics["amber_relation_f1"] == 1.0
    assert metrics["amber_unread_share"] == pytest.approx(1 / 6)
    assert metrics["amber_num_questions"] == 6


def test_the_scripts_own_rule_wants_one_word(tmp_path: Path) -> None:
    asked = build(write_amber(tmp_path).model_copy(update={"answer_rule": "exact"}))
    metrics = asked.evaluate(responses(asked))
    assert metrics["amber_accuracy"] == pytest.approx(1 / (6 + 0.001))  # 5: "Yes"
    assert metrics["amber_unread_share"] == pytest.approx(5 / 6)


def test_one_task_alone_has_its_figures_alone(tmp_path: Path) -> None:
    asked = build(write_amber(tmp_path))
    asked.keep([str(n) for n in range(4, 10)])
    metrics = asked.evaluate(responses(asked))
    assert "amber_chair" not in metrics
    assert metrics["amber_num_descriptions"] == 0


def test_images_can_be_listed_and_intervals_go_by_image(tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("AMBER_1\nAMBER_2.jpg\n")
    asked = build(write_amber(tmp_path).model_copy(update={"image_ids": str(ids)}))
    assert asked.prompt_ids() == ["1", "2", "4", "5", "6", "7"]
    assert len(asked.prompts()) == 6
    assert {o.image for o in asked.outcomes(responses(asked))} == {"AMBER_1.jpg", "AMBER_2.jpg"}
    assert "amber_cover" in confidence_intervals(asked.outcomes(responses(asked)))


def test_responses_go_out_as_the_script_reads_them_and_come_in(tmp_path: Path) -> None:
    asked = build(write_amber(tmp_path))
    records = asked.response_records(responses(asked))
    assert records[1] == {"id": 2, "response": SAID[2]}
    assert [record["response"] for record in records[3:]] == [
        "No", "Yes", "Yes", "No", "It seems so.", "No",
    ]  # fmt: skip
    path = tmp_path / "responses.json"
    path.write_text(json.dumps(records))
    read = read_responses(path, asked.response_fields, asked.prompt_ids())
    assert asked.evaluate(read.responses) == asked.evaluate(responses(asked))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dogs and puppies", ["dog", "puppy"]),
        ("A man, two men, people", ["man", "man", "people"]),
        ("Sky above", []),  # as it is written
        ("the leaves", []),  # WordNet: leaf
        ("a dog-house", []),
        ("vehicles.", ["vehicle"]),
    ],
)
def test_words(tmp_path: Path, text: str, words: list[str]) -> None:
    write_amber(tmp_path)
    assert AmberWords(read_amber(tmp_path / "data")).find(text) == words


def test_a_word_listed_under_two_objects_stands_for_the_first(tmp_path: Path) -> None:
    write_amber(tmp_path)
    relation = {"sea": ["water"], "lake": ["water"], "water": []}
    (tmp_path / "data/relation.json").write_text(json.dumps(relation))
    words = AmberWords(read_amber(tmp_path / "data"))
    counts = words.count("water and water", ["lake", "sea"], [])
    assert (counts.num_covered, counts.num_present, counts.num_hallucinated) == (1, 2, 0)


def edit(path: Path, value: Any) -> None:
    path.write_text(value if isinstance(value, str) else json.dumps(value))


@pytest.mark.parametrize(
    ("file", "value", "message"),
    [
        ("metrics.txt", "chair_num=__import__('os').getpid()", "not of the form name=number"),
        ("metrics.txt", "chair_num=inf", "not of the form name=number"),
        ("metrics.txt", "chair_num", "not of the form name=number"),
        ("metrics.txt", "chair_num=1\nchair_num=2", "each name once"),
        ("relation.json", ["dog"], "must be an object"),
        ("relation.json", {"dog": "puppy"}, "must map objects to lists of words"),
        ("relation.json", '{"dog": [], "dog": ["puppy"]}', "'dog' stands twice"),
        ("relation.json", "{", "not valid JSON"),
        ("annotations.json", [{"id": "1", "type": "generative"}], "a number of its own under 'id'"),
        (
            "annotations.json",
            [{"id": 4, "type": "discriminative-relation", "truth": "yes"}] * 2,
            "record 2: it needs a number of its own",
        ),
        (
            "annotations.json",
            [{"id": 1, "type": "generative", "truth": "sky", "hallu": []}],
            "a generative annotation cannot have 'sky'",
        ),
        (
            "annotations.json",
            [{"id": 4, "type": "discriminative-relation", "truth": "maybe"}],
            "cannot have 'maybe'",
        ),
    ],
)
def test_files_of_another_form_are_explained(
    tmp_path: Path, file: str, value: Any, message: str
) -> None:
    write_amber(tmp_path)
    edit(tmp_path / "data" / file, value)
    with pytest.raises(DataError, match=message):
        read_amber(tmp_path / "data")


def test_queries_of_another_form_are_explained(tmp_path: Path) -> None:
    config = write_amber(tmp_path)
    path = Path(config.queries)
    edit(path, [{"id": 1, "image": "a.jpg", "query": "?"}] * 2)
    with pytest.raises(DataError, match="a whole number that no other record has"):
        read_queries(path)
    edit(path, [{"id": 77, "image": "a.jpg", "query": "?"}])
    with pytest.raises(DataError, match="the query 77 has no annotation"):
        build(config).prompt_ids()
    edit(tmp_path / "data/annotations.json", [{"id": 77, "type": "other", "truth": "no"}])
    with pytest.raises(DataError, match="the query 77 has type 'other'"):
        build(config).prompt_ids()
