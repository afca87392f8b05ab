"""POPE's official files, and what is known to be wrong with some copies."""

import json
from pathlib import Path

import pytest

from csr.errors import DataError
from csr.evaluation._answers import substring_answer
from csr.evaluation._pope_files import read_pope
from csr.evaluation.pope import Config, build
from csr.outcomes import by_metric
from csr.response_files import read_responses
from csr.types import FinishReason, GeneratedResponse
from tests.pope_files import write_pope


def respond(prompt_ids: list[str], texts: list[str]) -> list[GeneratedResponse]:
    return [
        GeneratedResponse(
            prompt_id=name, text=text, token_ids=(1,), token_logprobs=(-0.1,),
            finish_reason=FinishReason.EOS,
        )
        for name, text in zip(prompt_ids, texts, strict=True)
    ]  # fmt: skip


def test_the_folder_of_the_three_files(tmp_path: Path) -> None:
    asked = build(Config(prompts=str(write_pope(tmp_path / "pope")), images=str(tmp_path / "pope")))
    ids = [prompt.prompt_id for prompt in asked.prompts()]
    assert ids[:2] == ["random-1", "random-2"]
    assert len(ids) == 12
    # random: all right; popular: all yes; adversarial: all no
    said = ["Yes", "No", "Yes", "No, there is none.", *["Yes"] * 4, *["no"] * 4]
    metrics = asked.evaluate(respond(ids, said))
    assert metrics["pope_random_accuracy"] == 1.0
    assert metrics["pope_popular_accuracy"] == 0.5
    assert metrics["pope_popular_precision"] == 0.5
    assert metrics["pope_popular_recall"] == 1.0
    assert metrics["pope_popular_f1"] == pytest.approx(2 / 3)
    assert metrics["pope_popular_yes_ratio"] == 1.0  # of answers; of labels it is .5 always
    assert metrics["pope_adversarial_yes_ratio"] == 0.0
    assert metrics["pope_adversarial_f1"] == 0.0
    assert metrics["pope_accuracy"] == pytest.approx(2 / 3)
    assert metrics["pope_f1"] == pytest.approx((1 + 2 / 3) / 3)
    assert metrics["pope_num_misspelt_prompts"] == 3
    assert metrics["pope_num_missing_prompts"] == 3 * (3000 - 4)
    for name, group in by_metric(asked.outcomes(respond(ids, said))).items():
        strata = {o.stratum for o in group}
        sums = [
            (
                sum(o.numerator for o in group if o.stratum == s),
                sum(o.denominator for o in group if o.stratum == s),
            )
            for s in strata
        ]
        mean = sum(top / bottom if bottom else 0.0 for top, bottom in sums) / len(sums)
        assert mean == pytest.approx(metrics[name]), name


def test_one_of_the_files(tmp_path: Path) -> None:
    file = write_pope(tmp_path) / "coco_pope_adversarial.json"
    read = read_pope(file)
    assert {record["split"] for record in read.records} == {"adversarial"}
    assert read.records[3]["id"] == "adversarial-4"


def test_a_file_of_answers_is_scored(tmp_path: Path) -> None:
    file = write_pope(tmp_path) / "coco_pope_random.json"
    asked = build(Config(prompts=str(file), images=str(tmp_path / "no images needed")))
    answers = tmp_path / "answers.jsonl"
    lines = [{"question_id": n, "answer": "yes"} for n in (1, 2, 3, 4)]
    answers.write_text("\n".join(map(json.dumps, lines)))
    read = read_responses(answers, asked.response_fields, asked.prompt_ids())
    assert asked.evaluate(read.responses)["pope_random_accuracy"] == 0.5
    written = asked.response_records(read.responses)
    assert written[0] == {"question_id": "random-1", "answer": "yes"}


def test_images_can_be_listed(tmp_path: Path) -> None:
    write_pope(tmp_path)
    ids = tmp_path / "ids.txt"
    ids.write_text("139\n")
    asked = build(Config(prompts=str(tmp_path), images=str(tmp_path), image_ids=str(ids)))
    assert asked.prompt_ids()[:2] == ["random-3", "random-4"]
    assert len(asked.prompt_ids()) == 6


@pytest.mark.parametrize(
    ("text", "label", "answer"),
    [
        ("Yes, there is.", "yes", "yes"),
        ("No.", "no", "no"),
        ("I do not know", "no", "no"),  # the letters "no" in "not" and in "know"
        ("I do not know", "yes", "no"),
        ("Yes or no", "yes", "yes"),  # right for either label
        ("Yes or no", "no", "no"),
        ("Eyes", "yes", "yes"),
        ("", "no", "yes"),
        ("", "yes", "no"),  # wrong for either label
    ],
)
def test_the_substring_rule(text: str, label: str, answer: str) -> None:
    assert substring_answer(text, label) == answer  # type: ignore[arg-type]


def test_the_rules_differ_in_their_figures(tmp_path: Path) -> None:
    file = write_pope(tmp_path) / "coco_pope_random.json"
    said = ["I do not know"] * 4
    found = {}
    for rule in ("official", "robust", "substring"):
        asked = build(Config(prompts=str(file), images=str(tmp_path), answer_rule=rule))  # type: ignore[arg-type]
        metrics = asked.evaluate(respond(list(asked.prompt_ids()), said))
        found[rule] = (metrics["pope_accuracy"], metrics["pope_yes_ratio"])
    assert found == {"official": (0.5, 0.0), "robust": (0.5, 0.0), "substring": (0.5, 0.0)}


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "coco_pope_random.json").unlink(), "random: none"),
        (
            lambda f: (f / "gqa_pope_random.json").write_text("{}"),
            r"random: coco_pope_random\.json, gqa_pope_random\.json",
        ),
        (
            lambda f: (f / "coco_pope_random.json").write_text(
                '{"question_id": 1, "image": "a.jpg", "text": "Is there?", "label": "Yes"}'
            ),
            "'label' is 'Yes'",
        ),
        (
            lambda f: (f / "coco_pope_random.json").write_text(
                '{"image": "a.jpg", "text": "Is there?", "label": "yes"}'
            ),
            "'id' is NoneType",
        ),
        (
            lambda f: (f / "coco_pope_random.json").write_text(
                '{"question_id": 1, "image": "a.jpg", "text": "Is there?", "label": "yes"}\n' * 2
            ),
            "'random-1' stands twice",
        ),
    ],
)
def test_wrong_files_are_explained(tmp_path: Path, break_it, message: str) -> None:  # type: ignore[no-untyped-def]
    folder = write_pope(tmp_path / "pope")
    break_it(folder)
    with pytest.raises(DataError, match=message):
        read_pope(folder)


def test_a_file_whose_name_tells_no_split_is_explained(tmp_path: Path) -> None:
    file = (write_pope(tmp_path) / "coco_pope_random.json").rename(tmp_path / "mine.json")
    with pytest.raises(DataError, match="its name does not say the split"):
        read_pope(file)
