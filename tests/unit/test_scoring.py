"""`csr score`: files of responses against a benchmark, without a model."""

import json
from pathlib import Path

import pytest
import yaml

from csr.errors import DataError
from csr.response_files import read_responses
from tests.amber_files import write_amber
from tests.coco_files import CAPTIONS, write_coco
from tests.pope_files import write_pope
from tests.scripted_run import Csr, write_recipe


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """`annotations`, and in `captions.json` a policy's captions."""
    write_coco(tmp_path)
    records = [{"image_id": name, "caption": text} for name, text in CAPTIONS.items()]
    (tmp_path / "captions.json").write_text(json.dumps(records, indent=1))
    return tmp_path


def score(csr: Csr, folder: Path, *arguments: object, file: str = "captions.json"):  # type: ignore[no-untyped-def]
    settings = ("--benchmark", "coco_chair", "--set", f"annotations={folder / 'annotations'}")
    return csr("score", folder / file, *settings, *arguments)


def test_captions_are_scored_without_images_or_a_model(csr: Csr, coco: Path) -> None:
    output = coco / "figures.json"
    shape = score(csr, coco, "--json", "--output", output).json()
    assert shape["metrics"]["chair_i"] == pytest.approx(4 / 9)  # see tests/coco_files.py
    assert shape["metrics"]["chair_s"] == pytest.approx(2 / 3)
    assert 0 < shape["metrics"]["chair_s_ci_low"] < 2 / 3
    assert (shape["num_responses"], shape["num_missing"], shape["num_unknown"]) == (3, 0, 0)
    assert len(shape["file_sha256"]) == 64
    assert shape["conditions"]["settings"]["unique_numerator"] is False
    assert json.loads(output.read_text()) == shape
    assert "0.4444" in score(csr, coco).out


def test_settings_of_the_benchmark_count(csr: Csr, coco: Path) -> None:
    shape = score(csr, coco, "--set", "unique_numerator=true", "--json").json()
    assert shape["metrics"]["chair_i"] == pytest.approx(3 / 9)


def test_a_part_is_scored_only_when_asked(csr: Csr, coco: Path) -> None:
    (coco / "part.jsonl").write_text('{"image_id": 9, "caption": "A man eats."}\n')
    refused = score(csr, coco, file="part.jsonl")
    assert refused.status == 2
    assert "answers 1 of 3 prompts" in refused.err
    shape = score(csr, coco, "--partial", "--json", file="part.jsonl").json()
    assert (shape["num_responses"], shape["num_missing"]) == (1, 2)
    ids = coco / "ids.txt"
    ids.write_text("9\n")
    listed = score(csr, coco, "--set", f"image_ids={ids}", "--json", file="part.jsonl").json()
    assert (listed["num_responses"], listed["num_missing"]) == (1, 0)


def test_fields_of_other_names_and_the_form_of_chairs_code(csr: Csr, coco: Path) -> None:
    lines = [{"question_id": name, "text": text} for name, text in CAPTIONS.items()]
    (coco / "llava.jsonl").write_text("\n".join(map(json.dumps, lines)))
    fields = ("--id-field", "question_id", "--text-field", "text")
    shape = score(csr, coco, *fields, "--json", file="llava.jsonl").json()
    assert shape["metrics"]["chair_i"] == pytest.approx(4 / 9)
    evaluated = {str(n): {"image_id": n, "caption": text} for n, text in CAPTIONS.items()}
    document = {"overall": {"CIDEr": 1.0}, "imgToEval": evaluated}
    (coco / "chair.json").write_text(json.dumps(document, indent=1))
    shape = score(csr, coco, "--json", file="chair.json").json()
    assert shape["metrics"]["chair_i"] == pytest.approx(4 / 9)


def test_the_recipes_settings_and_its_own_captions(csr: Csr, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data", num_iterations=0)
    home = tmp_path / "home"
    assert csr("run", recipe, "--home", home, "--run-id", "mine").status == 0
    file = home / "mine/iterations/00/attempts/1/evaluation/captions.responses.json"
    scored = csr("score", file, "--benchmark", "captions", "--recipe", recipe, "--json").json()
    run = csr("show", "mine/00", "--home", home, "--json").json()["metrics"]
    for name in ("mean_response_sentences", "distinct_1", "repetition"):
        assert scored["metrics"][name] == pytest.approx(run[name])
    settings = yaml.safe_load(recipe.read_text())["evaluation"][0]
    assert (
        scored["conditions"]["settings"]["max_response_tokens"] == settings["max_response_tokens"]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"image_id": 42}]', "a record needs 'image_id', a number or text, and 'caption'"),
        ('[{"image_id": 42, "caption": "a"}, {"image_id": "42", "caption": "b"}]', "stands twice"),
        ('[{"image_id": 1, "caption": "a"}]', "answers no prompt of the benchmark"),
        ("[]", "is empty"),
        ("{", "not valid JSON"),
        ('{"imgToEval": {"1": 3}}', "must be an object"),
        ('{"imgToEval": {}}', "answers no prompt of the benchmark"),
        ('{"imgToEval": [1]}', "must be an object"),
        (
            '{"imgToEval": {"42": {"image_id": 42, "caption": "a"}, "42": {"image_id": 42}}}',
            "'42' stands twice",
        ),
    ],
)
def test_wrong_files_are_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "captions.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_responses(path, ("image_id", "caption"), ["42", "139"])


def test_a_split_may_leave_its_name_out_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text('[{"question_id": 2, "answer": "yes"}]')
    fields = ("question_id", "answer")
    (one,) = read_responses(path, fields, ["random-1", "random-2"]).responses
    assert one.prompt_id == "random-2"
    with pytest.raises(DataError, match="answers no prompt"):
        read_responses(path, fields, ["random-2", "popular-2"])


def test_the_users_home_may_be_written_as_such(
    csr: Csr, coco: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(coco))
    settings = ("--benchmark", "coco_chair", "--set", "annotations=~/annotations")
    assert csr("score", coco / "captions.json", *settings).status == 0


def test_conditions_are_of_the_benchmark_and_not_of_the_folder(
    csr: Csr, coco: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(coco)
    before = score(csr, coco, "--json", "--output", "figures.json").json()
    assert score(csr, coco, "--json").json()["conditions"] == before["conditions"]
    (coco / "annotations" / "instances_val2014.json").open("a").write(" ")
    assert score(csr, coco, "--json").json()["conditions"] != before["conditions"]


def test_mistakes_of_the_command_are_explained(csr: Csr, coco: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data")
    for arguments, message in (
        (
            ("--benchmark", "multiple_choice", "--set", "prompts=x"),
            "no form for files of responses",
        ),
        (("--benchmark", "coco_char"), "no component 'coco_char'"),
        (("--benchmark", "coco_chair"), "annotations: is missing"),
        (
            ("--benchmark", "coco_chair", "--recipe", recipe),
            "names no benchmark 'coco_chair' under `evaluation`, but captions. Score against",
        ),
        (("--benchmark", "captoins", "--recipe", recipe), "Did you mean 'captions'?"),
    ):
        answer = csr("score", coco / "captions.json", *arguments)
        assert (answer.status, answer.out) == (2, "")
        assert message in answer.err


def test_what_a_run_exports_is_scored_alike(csr: Csr, tmp_path: Path) -> None:
    """Benchmarks in their official files, through a whole evaluation and back from its files."""
    annotations = write_coco(tmp_path)
    amber = write_amber(tmp_path / "amber")
    pope = write_pope(tmp_path / "pope")
    settings = {
        "coco_chair": {"annotations": str(annotations), "images": str(tmp_path / "images")},
        "pope": {"prompts": str(pope), "images": str(pope)},
        "amber": amber.model_dump(include={"annotations", "queries", "images"}),
    }
    evaluation = [{"name": name, **each} for name, each in settings.items()]
    recipe = write_recipe(tmp_path / "data", num_iterations=0, evaluation=evaluation)
    home = tmp_path / "home"
    done = csr("run", recipe, "--home", home, "--run-id", "mine")
    assert done.status == 0, done.err
    shown = csr("show", "mine/00", "--home", home, "--json").json()
    for name in settings:
        file = home / f"mine/iterations/00/attempts/1/evaluation/{name}.responses.json"
        scored = csr("score", file, "--benchmark", name, "--recipe", recipe, "--json").json()
        figures = scored["metrics"]
        assert len(figures) > 8
        assert {key: shown["metrics"][key] for key in figures} == pytest.approx(figures)
        kept = shown["benchmarks"][name]["settings"]
        assert scored["conditions"]["settings"] == kept
    assert shown["benchmarks"]["coco_chair"]["prompt"] == "Please describe this image in detail."
    assert shown["benchmarks"]["pope"]["num_prompts"] == 12
