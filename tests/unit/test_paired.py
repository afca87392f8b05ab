"""What `csr show`, `csr diff` and `csr compare` say of figures: conditions, intervals, tests."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from storage.attempt import parse_iteration_id
from storage.run_store import RunStore
from storage.tables import read_table
from tests.scripted_run import NUM_HELD_OUT, Csr, Silent, write_recipe

RUN = "s1"


def with_vocabulary(folder: Path, **settings: Any) -> Path:
    """A recipe whose held-out images show known things, which the scripted policy may name."""
    recipe = write_recipe(folder, **settings)
    records = [json.loads(line) for line in (folder / "heldout.jsonl").read_text().splitlines()]
    for record in records:
        record["objects"] = [{"name": "dog"}]
    (folder / "heldout.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    names = {"dog": ["dog", "dogs"], "any": ["the", "a"]}
    (folder / "vocabulary.json").write_text(json.dumps({"objects": names}))
    return recipe


def evaluation(folder: Path, **settings: Any) -> list[dict[str, Any]]:
    base = {
        "name": "captions",
        "prompts": str(folder / "heldout.jsonl"),
        "images": str(folder / "images"),
        "vocabulary": str(folder / "vocabulary.json"),
        "max_response_tokens": 40,
    }
    return [base | settings]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data`, and in `home` two runs of two seeds, whose captions are counted."""
    folder = tmp_path_factory.mktemp("paired")
    recipe = with_vocabulary(folder / "data", evaluation=evaluation(folder / "data"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        csr = Csr(monkeypatch, Silent())  # type: ignore[arg-type]
        for seed in (1, 2):
            run = ("run", recipe, "--run-id", f"s{seed}", "--set", f"seed={seed}")
            assert csr(*run, "--home", folder / "home").status == 0
    return folder


@pytest.fixture(scope="module")
def home(folder: Path) -> Path:
    return folder / "home"


def test_every_figure_is_kept_with_its_conditions(csr: Csr, home: Path) -> None:
    shown = csr("show", f"{RUN}/01", "--home", home, "--json").json()
    conditions = shown["benchmarks"]["captions"]
    assert conditions["prompt"] == "Describe the image."
    assert conditions["max_response_tokens"] == 40
    assert conditions["decoding"] == "greedy"
    assert conditions["num_prompts"] == conditions["num_images"] == NUM_HELD_OUT
    assert len(conditions["prompts_sha256"]) == 64
    assert len(conditions["settings"]["prompts"]) == 64  # the file's digest, not its place
    told = csr("show", f"{RUN}/01", "--home", home).out
    assert '"Describe the image.", 3 images, at most 40 tokens, greedy' in told


def test_the_attempt_keeps_what_each_response_adds(csr: Csr, home: Path) -> None:
    asked = parse_iteration_id(f"{RUN}/01")
    attempt = RunStore(home).attempt(asked.run_id, asked.iteration)
    rows = read_table(attempt.outcomes("captions"), "outcomes").to_pylist()
    sentences = [row for row in rows if row["metric"] == "mean_response_sentences"]
    metrics = attempt.manifest.read().metrics
    assert sum(row["numerator"] for row in sentences) / NUM_HELD_OUT == pytest.approx(
        metrics["mean_response_sentences"]
    )
    written = json.loads(attempt.response_records("captions").read_text())
    assert [record["id"] for record in written] == ["100", "101", "102"]
    kept = {file.path for stage in attempt.manifest.read().stages for file in stage.files}
    assert {
        "evaluation/captions.outcomes.parquet",
        "evaluation/captions.responses.json",
        "evaluation/conditions.json",
    } <= kept


def test_figures_have_intervals_and_two_attempts_are_tested(csr: Csr, home: Path) -> None:
    metrics = csr("show", "s1/01", "--home", home, "--json").json()["metrics"]
    assert metrics["chair_s_ci_low"] <= metrics["chair_s"] <= metrics["chair_s_ci_high"]
    assert f"[{metrics['chair_s_ci_low']:.3f}, " in csr("show", "s1/01", "--home", home).out
    shape = csr("diff", "s1/00", "s1/02", "--home", home, "--json").json()
    tested = {each["metric"]: each for each in shape["tests"]}
    assert set(tested) == {"chair_s", "chair_i", "recall"}
    one = tested["chair_s"]
    assert one["after"] - one["before"] == pytest.approx(one["difference"])
    assert (one["num_prompts"], one["method"]) == (NUM_HELD_OUT, "mcnemar")
    assert 0 < one["p_value"] <= one["p_adjusted"] <= 1
    assert "test chair_s" in csr("diff", "s1/00", "s1/02", "--home", home).out


def test_compare_tests_each_seed_against_its_base(csr: Csr, home: Path) -> None:
    shape = csr("compare", "s1", "s2", "--home", home, "--json").json()
    sides = {(each["before_id"], each["after_id"]) for each in shape["tests"]}
    assert sides == {("s1/00.1", "s1/02.1"), ("s2/00.1", "s2/02.1")}
    assert shape["conditions"]["s1"]["captions"]["prompt"] == "Describe the image."
    assert shape["cautions"] == []
    markdown = csr("compare", "s1", "s2", "--home", home, "--markdown").out
    assert "| figure | before | after | difference | p | p (Holm) | test |" in markdown
    assert "Neither says what another training seed would do." in markdown
    told = csr("compare", "s1", "s2", "--home", home).out
    assert "Paired tests" in told
    assert "recall at most 1 points lower" in told


def test_the_control_is_asked_of_the_same_iteration(
    csr: Csr, folder: Path, home: Path, tmp_path: Path
) -> None:
    home = Path(shutil.copytree(home, tmp_path / "home"))
    data = folder / "data"
    recipe = with_vocabulary(data, name="random", evaluation=evaluation(data))
    run = ("run", recipe, "--set", "seed=1", "--home", home, "--run-id")
    assert csr(*run, "control").status == 0
    RunStore(home).attempt("s1", 1).manifest.update(metrics={})  # as if it were not evaluated
    RunStore(home).attempt("control", 1).manifest.update(metrics={})
    shape = csr("compare", "s1", "control", "--control", "random", "--home", home, "--json").json()
    assert [(row["label"], row["iteration"]) for row in shape["rows"]] == [
        ("base", 0), ("scripted", 2), ("random", 2),
    ]  # fmt: skip
    assert shape["verdicts"][0]["iteration"] == 2
    sides = {(each["before_id"], each["after_id"]) for each in shape["tests"]}
    assert ("control/02.1", "s1/02.1") in sides


def test_a_run_that_ended_before_its_base_has_nothing_to_compare(
    csr: Csr, home: Path, tmp_path: Path
) -> None:
    home = Path(shutil.copytree(home, tmp_path / "home"))
    shutil.rmtree(home / "s1/iterations")
    answer = csr("compare", "s1", "s2", "--home", home)
    assert answer.status == 2
    assert "run s1 has nothing to compare" in answer.err


def test_ids_of_prompts_are_shown_as_they_are(csr: Csr, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    recipe = write_recipe(folder, num_iterations=1)
    records = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    for number, record in enumerate(records):
        record["id"] = f"[/red]{number}\x1b[2J"
    (folder / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert csr("run", recipe, "--home", tmp_path / "home", "--run-id", "mine").status == 0
    answer = csr("diff", "mine/00", "mine/01", "--home", tmp_path / "home")
    assert answer.status == 0
    assert "[/red]0\ufffd[2J" in answer.out
    assert "\x1b" not in answer.out


def test_other_conditions_are_not_compared(csr: Csr, folder: Path, home: Path) -> None:
    data = folder / "data"
    shorter = evaluation(data, max_response_tokens=20)
    recipe = with_vocabulary(data, name="other", num_iterations=0, evaluation=shorter)
    assert csr("run", recipe, "--home", home, "--run-id", "short").status == 0
    shape = csr("diff", "s1/00", "short/00", "--home", home, "--json").json()
    assert shape["tests"] == []
    assert shape["untested"] == {
        "s1/00.1 short/00.1 captions": "asked under other conditions "
        "(max_response_tokens, settings)"
    }
    told = " ".join(csr("diff", "s1/00", "short/00", "--home", home).out.split())
    assert (
        "Caution: captions of s1/00.1 and short/00.1 is not tested: asked under other conditions "
        "(max_response_tokens, settings)." in told
    )
    compared = csr("compare", "s1", "short", "--home", home, "--json").json()
    assert compared["cautions"] == [
        "captions: short and s1 were asked under other conditions (max_response_tokens, settings), "
        "so their figures are not comparable"
    ]


def test_attempts_of_an_earlier_release_are_told(csr: Csr, home: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(home, tmp_path / "home"))
    RunStore(home).attempt("s1", 1).outcomes("captions").unlink()
    shape = csr("diff", "s1/00", "s1/01", "--home", home, "--json").json()
    assert shape["tests"] == []
    RunStore(home).attempt("s1", 2).outcomes("captions").unlink()
    for form in ((), ("--markdown",)):
        told = " ".join(csr("compare", "s1", "--home", home, *form).out.split())
        assert "captions of s1/00.1 and s1/02.1 is not tested: s1/02.1 has no outcomes" in told
    assert "s1/01.1 has no outcomes of single responses" in next(iter(shape["untested"].values()))


def test_two_benchmarks_of_the_same_figures_are_refused(csr: Csr, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    coco = {"name": "coco_chair", "annotations": str(folder), "images": str(folder)}
    recipe = write_recipe(folder, evaluation=[*evaluation(folder), coco])
    answer = csr("validate", recipe)
    assert answer.status == 2
    assert "of captions, coco_chair two report figures of one name" in answer.err
