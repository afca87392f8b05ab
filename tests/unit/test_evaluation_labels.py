"""Closed questions answered by probabilities: POPE's calibrated figures, and multiple choice."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from csr.errors import DataError
from csr.evaluation import multiple_choice, pope
from csr.evaluation._labels import read_labels
from csr.label_calibration import surface_forms
from csr.types import FinishReason, GeneratedResponse
from storage.run_store import RunStore
from tests.scripted_run import Csr, write_recipe

HALF = (math.log(0.5), math.log(0.5))


def logs(*values: float) -> tuple[float, ...]:
    return tuple(map(math.log, values))


def say(prompt_id: str, text: str = "Yes.") -> GeneratedResponse:
    return GeneratedResponse(
        prompt_id=prompt_id,
        text=text,
        token_ids=(1,),
        token_logprobs=(-0.1,),
        finish_reason=FinishReason.EOS,
    )


def write(folder: Path, records: list[dict[str, Any]]) -> dict[str, str]:
    Image.new("RGB", (4, 4), "red").save(folder / "a.png")
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps({"image": "a.png", **r}) + "\n" for r in records))
    return {"prompts": str(path), "images": str(folder)}


def test_surface_forms() -> None:
    assert surface_forms("yes") == (" Yes", "Yes", " yes", "yes")
    assert surface_forms("TV") == (" TV", "TV", " tV", "tV")


def test_readings_over_the_question_and_over_the_dataset() -> None:
    answers = [logs(0.3, 0.1), logs(0.6, 0.2), logs(0.1, 0.3), logs(0.2, 0.2)]
    one, two = read_labels(answers, 2, "question")
    assert one.plain == pytest.approx((0.75, 0.25))
    assert one.calibrated == pytest.approx((0.5, 0.5), abs=1e-3)
    assert one.mass == pytest.approx(0.4)
    assert two.calibrated == pytest.approx((0.25, 0.75))
    # the mean habit is (0.75 + 0.5) / 2 = 0.625 for the first label
    one, two = read_labels(answers, 2, "dataset")
    odds = one.calibrated[0] / one.calibrated[1]
    assert odds == pytest.approx(3 * 0.375 / 0.625, rel=1e-3)


# ---------------------------------------------------------------- POPE


def pope_config(folder: Path, **settings: str) -> pope.Config:
    records = [
        {"id": f"q{n}", "input": "Is there a dog?", "split": "random", "label": label}
        for n, label in enumerate(["yes", "no"])
    ]
    return pope.Config.model_validate({**write(folder, records), **settings})


def test_pope_asks_no_probabilities_unless_told(tmp_path: Path) -> None:
    benchmark = pope.build(pope_config(tmp_path))
    assert benchmark.label_queries() == ()
    metrics = benchmark.evaluate([say("q0"), say("q1")])
    assert not [name for name in metrics if "calibrated" in name or "label" in name]


def test_pope_reports_plain_and_calibrated_figures(tmp_path: Path) -> None:
    """A policy that says "yes" to both, more so without an image than to the absent dog."""
    benchmark = pope.build(pope_config(tmp_path, calibration="content_free"))
    queries = benchmark.label_queries()
    assert [(q.prompt.prompt_id, q.with_image) for q in queries] == [
        ("q0", True), ("q0", False), ("q1", True), ("q1", False),
    ]  # fmt: skip
    assert queries[0].forms == (surface_forms("yes"), surface_forms("no"))
    answers = [logs(0.9, 0.1), logs(0.7, 0.3), logs(0.6, 0.4), logs(0.7, 0.3)]
    metrics = benchmark.evaluate([say("q0"), say("q1")], answers)
    assert metrics["pope_accuracy"] == metrics["pope_label_accuracy"] == 0.5
    assert metrics["pope_yes_ratio"] == metrics["pope_label_yes_ratio"] == 1.0
    assert metrics["pope_calibrated_accuracy"] == 1.0
    assert metrics["pope_calibrated_random_f1"] == 1.0
    assert metrics["pope_calibrated_yes_ratio"] == 0.5
    assert metrics["pope_label_mass"] == pytest.approx(1.0)


def test_both_content_free_inputs_are_asked(tmp_path: Path) -> None:
    settings = {"calibration": "content_free", "content_free": "both"}
    queries = pope.build(pope_config(tmp_path, **settings)).label_queries()
    seen = [(q.with_image, q.prompt.image.corruption) for q in queries]
    assert seen == [(True, None), (False, None), (True, "blank")] * 2


# ---------------------------------------------------------------- multiple choice

QUESTION = {
    "id": "m0",
    "input": "What color is it?",
    "choices": ["red", "green", "blue"],
    "label": "green",
}


def choice_config(
    folder: Path, *records: dict[str, Any], **settings: Any
) -> multiple_choice.Config:
    return multiple_choice.Config.model_validate({**write(folder, list(records)), **settings})


def test_choices_stand_below_the_question_and_letters_are_read(tmp_path: Path) -> None:
    config = choice_config(tmp_path, QUESTION, instruction="Give the letter.")
    benchmark = multiple_choice.build(config)
    [prompt] = benchmark.prompts()
    assert prompt.text == "What color is it?\nA. red\nB. green\nC. blue\nGive the letter."
    assert benchmark.label_queries()[0].forms[1] == (" B", "B", " (B", "(B")


def test_accuracy_plain_and_calibrated(tmp_path: Path) -> None:
    """The policy likes "A" whatever it sees."""
    records = [QUESTION, {**QUESTION, "id": "m1", "label": "red"}]
    config = choice_config(tmp_path, *records, calibration="content_free")
    benchmark = multiple_choice.build(config)
    habit = logs(0.8, 0.1, 0.1)
    answers = [logs(0.5, 0.3, 0.2), habit, logs(0.9, 0.05, 0.05), habit]
    metrics = benchmark.evaluate([say("m0"), say("m1")], answers)
    assert metrics["multiple_choice_accuracy"] == 0.5
    assert metrics["multiple_choice_top_place_share"] == 1.0
    assert metrics["multiple_choice_calibrated_accuracy"] == 1.0
    assert metrics["multiple_choice_num_prompts"] == 2
    plain = multiple_choice.build(choice_config(tmp_path, *records))
    assert [query.with_image for query in plain.label_queries()] == [True, True]
    figures = plain.evaluate([say("m0"), say("m1")], answers[::2])
    assert figures["multiple_choice_accuracy"] == 0.5
    assert "multiple_choice_calibrated_accuracy" not in figures


def test_words_of_the_choices_can_be_read_instead(tmp_path: Path) -> None:
    benchmark = multiple_choice.build(choice_config(tmp_path, QUESTION, answer_by="text"))
    assert benchmark.prompts()[0].text == "What color is it?"
    assert benchmark.label_queries()[0].forms[0] == (" Red", "Red", " red", "red")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"choices": "red"}, r"line 2 \('m1'\): 'choices' is 'red', but must be a list"),
        ({"choices": ["red"]}, "2 to 26 different texts"),
        ({"choices": ["red", "red"], "label": "red"}, "different texts"),
        ({"choices": ["red", " "], "label": "red"}, "none of them blank"),
        ({"choices": [["red"], ["green"]]}, "different texts"),
        ({"label": "Green"}, r"'label' is 'Green'.*'red', 'green', 'blue'"),
        ({"label": None}, "'label' is None"),
        ({"input": None}, r"line 2: 'input'"),
        ({"choices": ["green", "green tea"]}, r"'green tea' begins with the choice 'green'"),
    ],
)
def test_a_bad_record_is_named_with_its_line(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    config = choice_config(tmp_path, QUESTION, {**QUESTION, "id": "m1", **change}, answer_by="text")
    with pytest.raises(DataError, match=told):
        multiple_choice.build(config).prompts()


@pytest.mark.parametrize("benchmark", [pope, multiple_choice])
@pytest.mark.parametrize(
    ("name", "value"), [("content_free", "both"), ("calibration_scope", "dataset")]
)
def test_how_to_calibrate_is_refused_where_nothing_is_calibrated(
    benchmark: Any, name: str, value: str
) -> None:
    with pytest.raises(ValidationError, match=f"{name} is {value}, which has no effect without"):
        benchmark.Config(prompts="p", images="i", **{name: value})


def test_a_mean_over_questions_with_choices_of_their_own_is_refused() -> None:
    with pytest.raises(ValidationError, match="no mean over them"):
        multiple_choice.Config(
            prompts="p", images="i", answer_by="text", calibration_scope="dataset"
        )


# ---------------------------------------------------------------- through the flow


def test_a_whole_run_asks_for_labels(csr: Csr, tmp_path: Path) -> None:
    data = tmp_path / "data"
    recipe = write_recipe(data)
    Image.new("RGB", (8, 6), (9, 9, 9)).save(data / "images/new.png")
    records = [
        {
            "id": f"q{n}",
            "image": "new.png",
            "input": f"Is there a ring {n}?",
            "split": "random",
            "label": "yes" if n % 2 else "no",
        }
        for n in range(16)
    ]
    (data / "pope.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    benchmark = {
        "name": "pope", "prompts": str(data / "pope.jsonl"), "images": str(data / "images"),
        "calibration": "content_free", "content_free": "both",
    }  # fmt: skip
    sampler = {"name": "scripted", "replies": ["Yes.", "No.", "yes, a ring.", "no, not one."]}
    recipe = write_recipe(data, num_iterations=0, sampler=sampler, evaluation=[benchmark])
    home = tmp_path / "home"
    assert csr("run", recipe, "--home", home, "--run-id", "mine").status == 0
    metrics = RunStore(home).attempt("mine", 0).manifest.read().metrics
    assert metrics["pope_label_mass"] == pytest.approx(1.0)  # it says nothing else
    assert 0 < metrics["pope_calibrated_yes_ratio"] < 1
    assert metrics["pope_calibrated_yes_ratio"] != metrics["pope_label_yes_ratio"]
