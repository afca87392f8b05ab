import json
from pathlib import Path

import pytest
from PIL import Image

from csr.errors import DataError
from csr.evaluation._answers import official_answer, robust_answer
from csr.evaluation._pope_figures import pope_metrics, split_metrics
from csr.evaluation.pope import Config, build, spread
from csr.types import FinishReason, GeneratedResponse


@pytest.mark.parametrize(
    ("text", "official", "robust"),
    [
        ("Yes.", "yes", "yes"),
        ("Yes, there is", "yes", "yes"),
        ("No", "no", "no"),
        ("No, there is no dog.", "no", "no"),
        ("No, a cat.", "no", "no"),
        ("There is not a dog in the image.", "no", "no"),
        ("It is a cat. No dog.", "yes", "no"),  # the authors read the first sentence only
        ("NO!", "yes", "no"),
        ("no\n", "yes", "no"),  # the authors split at spaces only
        ("There isn't a dog.", "yes", "no"),
        ("There isn\u2019t a dog.", "yes", "no"),
        ("Yes, not far from the car.", "no", "yes"),
        ("Nobody knows.", "yes", None),
        ("A dog.", "yes", None),
        ("", "yes", None),
    ],
)
def test_answers(text: str, official: str, robust: str | None) -> None:
    assert official_answer(text) == official
    assert robust_answer(text) == robust


def test_figures_of_a_split() -> None:
    metrics = split_metrics(["yes", "yes", "yes", "no", "no"], ["yes", "yes", "no", "yes", "no"])
    assert metrics["accuracy"] == 3 / 5
    assert metrics["precision"] == 2 / 3
    assert metrics["recall"] == 2 / 3
    assert metrics["f1"] == pytest.approx(2 / 3)
    assert metrics["yes_ratio"] == 3 / 5


def test_the_yes_ratio_is_of_answers_not_labels() -> None:
    assert split_metrics(["yes", "no"], ["yes", "yes"])["yes_ratio"] == 1.0
    assert split_metrics(["yes", "no"], ["no", "no"])["yes_ratio"] == 0.0


def test_an_unreadable_answer_is_wrong_and_no_yes() -> None:
    metrics = split_metrics(["yes", "no"], [None, None])
    assert set(metrics.values()) == {0.0}


def test_means_over_the_splits_that_occur() -> None:
    metrics = pope_metrics(
        ["random", "random", "adversarial", "adversarial"],
        ["yes", "no", "yes", "no"],
        ["yes", "no", "yes", "yes"],
    )
    assert metrics["pope_random_accuracy"] == 1.0
    assert metrics["pope_adversarial_accuracy"] == 0.5
    assert metrics["pope_accuracy"] == 0.75
    assert metrics["pope_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert metrics["pope_yes_ratio"] == 0.75
    assert not [name for name in metrics if "popular" in name]


def test_a_limit_is_spread_over_splits_and_labels() -> None:
    records = [
        {"id": f"{split}-{label}-{n}", "split": split, "label": label}
        for split in ("random", "popular")
        for label in ("yes", "no")
        for n in range(3)
    ]
    assert [r["id"] for r in spread(records, 5)] == [
        "random-yes-0",
        "random-yes-1",
        "random-no-0",
        "popular-yes-0",
        "popular-no-0",
    ]
    assert spread(records, None) == records


def write_questions(folder: Path, **changes: str) -> Config:
    Image.new("RGB", (4, 4), "red").save(folder / "a.png")
    records = [
        {"id": f"q{n}", "image": "a.png", "input": "Is there a dog?", "split": split, **answer}
        for n, (split, answer) in enumerate(
            [("random", {"label": "yes"}), ("popular", {"label": "no"})]
        )
    ]
    records[1] |= changes
    path = folder / "pope.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return Config(prompts=str(path), images=str(folder))


def respond(prompt_id: str, text: str) -> GeneratedResponse:
    return GeneratedResponse(
        prompt_id=prompt_id,
        text=text,
        token_ids=(1, 2),
        token_logprobs=(-0.1, -0.2),
        finish_reason=FinishReason.EOS,
    )


def test_from_file_to_metrics(tmp_path: Path) -> None:
    benchmark = build(write_questions(tmp_path))
    assert [(p.prompt_id, p.text) for p in benchmark.prompts()] == [
        ("q0", "Is there a dog?"),
        ("q1", "Is there a dog?"),
    ]
    metrics = benchmark.evaluate([respond("q0", "Yes."), respond("q1", "NO")])
    assert metrics["pope_random_accuracy"] == 1.0
    assert metrics["pope_popular_accuracy"] == 0.0  # the authors' rule misses "NO"
    assert metrics["pope_rule_disagreement"] == 0.5
    assert metrics["pope_num_prompts"] == 2


def test_the_robust_rule_can_be_chosen(tmp_path: Path) -> None:
    config = write_questions(tmp_path).model_copy(update={"answer_rule": "robust"})
    metrics = build(config).evaluate([respond("q0", "Yes."), respond("q1", "NO")])
    assert metrics["pope_accuracy"] == 1.0


def test_responses_out_of_order_are_our_mistake(tmp_path: Path) -> None:
    benchmark = build(write_questions(tmp_path))
    with pytest.raises(AssertionError):
        benchmark.evaluate([respond("q1", "Yes."), respond("q0", "No")])


@pytest.mark.parametrize(("key", "value"), [("label", "Yes"), ("split", "hard")])
def test_an_unknown_label_or_split_is_named(tmp_path: Path, key: str, value: str) -> None:
    config = write_questions(tmp_path, **{key: value})
    with pytest.raises(DataError, match=rf"'q1'.*'{key}'.*'{value}'"):
        build(config).prompts()
