"""`csr lmms-eval`: another process in another environment, and what is taken over from it."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from csr.errors import DataError
from flows.lmms_results import flat_figures, read_results
from tests.fake_lmms_eval import make_environment
from tests.scripted_run import Csr, Silent, write_policy, write_recipe

RUN = "mine"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in `home`, a `model`, an environment with lmms-eval (`venv`) and one without."""
    folder = tmp_path_factory.mktemp("lmms")
    with pytest.MonkeyPatch.context() as monkeypatch:
        csr = Csr(monkeypatch, Silent())  # type: ignore[arg-type]
        recipe = write_recipe(folder / "data", num_iterations=1)
        assert csr("run", recipe, "--home", folder / "home", "--run-id", RUN).status == 0
    write_policy(folder / "model")
    make_environment(folder / "venv")
    make_environment(folder / "bare", with_lmms_eval=False)
    return folder


def ask(csr: Csr, folder: Path, target: object, *arguments: object, tasks: str = "pope,amber_g"):  # type: ignore[no-untyped-def]
    python = folder / "venv/bin/python"
    options = ("--tasks", tasks, "--python", python, "--home", folder / "home")
    return csr("lmms-eval", target, *options, *arguments)


def test_an_iterations_policy_is_evaluated_and_the_figures_are_kept(
    csr: Csr, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "hf_token", "AWS_ACCESS_KEY_ID", "DB_PASSWD", "VLLM_API_KEY"):
        monkeypatch.setenv(name, "hf_secret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    (folder / "token").write_text("hf_secret")
    monkeypatch.setenv("HF_HOME", str(folder))
    answer = ask(csr, folder, f"{RUN}/01", "--json")
    assert answer.status == 0, answer.err
    shape = answer.json()
    pope = shape["tasks"]["pope"]
    assert pope["figures"]["pope_accuracy"] == {
        "value": 0.875, "stderr": 0.0035, "higher_is_better": True,
    }  # fmt: skip
    assert pope["figures"]["pope_f1_score"]["stderr"] is None
    assert pope["generation"]["max_new_tokens"] == 128
    assert pope["wording"]["post_prompt"].startswith("\nAnswer")
    assert (pope["num_samples"], shape["lmms_eval"]) == (9000, "0.7.3")
    kept = Path(shape["folder"])
    attempt = folder / f"home/{RUN}/iterations/01/attempts/1"
    assert kept.parent == attempt / "evaluation/lmms_eval"
    assert kept.name.startswith("pope-amber_g-")
    assert json.loads((kept / "results.json").read_text())["offline"] == "1"
    assert "hf_secret" not in (kept / "log.txt").read_text()
    assert "trust_remote_code=False" in " ".join(shape["command"])
    assert "--trust_remote_code" not in shape["command"]
    shown = csr("show", f"{RUN}/01", "--home", folder / "home", "--json").json()
    assert shown["lmms_eval"][0]["tasks"] == shape["tasks"]
    assert "pope_accuracy" not in shown["metrics"]  # ours alone
    told = csr("show", f"{RUN}/01", "--home", folder / "home").out
    assert "lmms_eval.pope.pope_accuracy" in told
    assert csr("verify", RUN, "--home", folder / "home").status == 0


def test_a_try_with_a_few_samples_replaces_no_whole_result(csr: Csr, folder: Path) -> None:
    whole = ask(csr, folder, f"{RUN}/01", "--json").json()
    few = ask(csr, folder, f"{RUN}/01", "--limit", 5, "--json").json()
    assert few["folder"] != whole["folder"]
    assert Path(whole["folder"], "figures.json").exists()
    again = ask(csr, folder, f"{RUN}/01", "--json").json()
    assert again["folder"] == whole["folder"]


@pytest.mark.parametrize("python", ["venv/bin/python", "./venv/bin/python", "~/venv/bin/python"])
def test_the_interpreter_may_be_named_from_here(
    csr: Csr, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    options = ("--tasks", "pope", "--output", tmp_path / "results", "--home", "home")
    answer = csr("lmms-eval", "model", "--python", python, *options)
    assert answer.status == 0, answer.err


def test_its_known_faults_are_not_taken_over(csr: Csr, folder: Path) -> None:
    answer = ask(csr, folder, f"{RUN}/01", "--limit", 8, "--json")
    shape = answer.json()
    assert "pope_yes_ratio" not in shape["tasks"]["pope"]["figures"]
    assert "counts the labels' yes" in shape["tasks"]["pope"]["left_out"]["pope_yes_ratio"]
    assert shape["tasks"]["amber_g"]["figures"]["amber_cog"]["higher_is_better"] is False
    assert shape["tasks"]["amber_g"]["left_out"] == {"amber_chair": "its value is nan"}
    cautions = "\n".join(shape["cautions"])
    assert "'Yes.' is wrong" in cautions
    assert "amber_g: its own settings load its data set with trust_remote_code" in cautions
    assert "pope: 8 of 9000 samples were asked" in cautions
    assert "'Yes.' is wrong" in ask(csr, folder, f"{RUN}/01").out


def test_a_models_results_go_to_a_new_folder(csr: Csr, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "results"
    shape = ask(csr, folder, folder / "model", "--output", output, "--json").json()
    assert json.loads((output / "figures.json").read_text())["tasks"] == shape["tasks"]
    assert (output / "log.txt").exists()
    again = ask(csr, folder, folder / "model", "--output", output)
    assert (again.status, again.out) == (2, "")
    assert "exists, and is not overwritten" in again.err


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("nothing", "wrote no results. Its last lines:\nEvaluation tracker args"),
        ("killed", "ended with status 9"),
    ],
)
def test_a_failure_shows_the_end_of_its_log(
    csr: Csr, folder: Path, tmp_path: Path, tasks: str, message: str
) -> None:
    output = tmp_path / "results"
    answer = ask(csr, folder, folder / "model", "--output", output, tasks=tasks)
    assert answer.status == 1
    assert message in answer.err
    if tasks == "nothing":
        assert "ValueError: Tasks not found: nothing" in answer.err
    assert not output.exists()


def test_a_task_that_takes_too_long_is_ended(csr: Csr, folder: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    options = ("--output", tmp_path / "results", "--timeout-minutes", 0.02)
    answer = ask(csr, folder, folder / "model", *options, tasks="hangs")
    assert answer.status == 1
    assert "took longer than 1 s and was ended" in answer.err
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--python", "bare/bin/python"), "has no lmms-eval"),
        (("--python", "none/bin/python"), "there is no such program"),
        (("--model-arg", "dtype=float16,device=cpu"), "parts its model's arguments at ','"),
        (("--model-arg", "trust_remote_code=True"), "would run code from the model's directory"),
    ],
)
def test_mistakes_are_explained(
    csr: Csr, folder: Path, tmp_path: Path, arguments: tuple[str, str], message: str
) -> None:
    name, value = arguments
    given = (name, folder / value) if name == "--python" else arguments
    python = () if name == "--python" else ("--python", folder / "venv/bin/python")
    target = ("--tasks", "pope", "--output", tmp_path / "results", "--home", folder / "home")
    answer = csr("lmms-eval", folder / "model", *target, *python, *given)
    assert (answer.status, answer.out) == (2, "")
    assert message in answer.err


def test_no_task_is_explained(csr: Csr, folder: Path) -> None:
    answer = ask(csr, folder, f"{RUN}/01", tasks=" ,")
    assert (answer.status, answer.out) == (2, "")
    assert "--tasks names no task" in answer.err


def test_what_is_neither_an_iteration_nor_a_directory_is_explained(csr: Csr, folder: Path) -> None:
    answer = ask(csr, folder, "llava-hf/llava-1.5-7b-hf", "--output", "x")
    assert (answer.status, answer.out) == (2, "")
    assert "is neither an iteration in" in answer.err
    answer = ask(csr, folder, folder / "model")
    assert "--output FOLDER" in " ".join(answer.err.split())


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "no figures under 'results'"),
        ([], "no figures under 'results'"),
        ({"results": {"pope": 0.9}}, "no figures under 'results'"),
        ("{", "is not JSON"),
    ],
)
def test_files_of_another_shape_are_explained(tmp_path: Path, document: Any, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(DataError, match=message):
        read_results(path)


def test_figures_of_another_filter_keep_its_name(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"results": {"t": {"acc,strict": 1, "acc,none": 0.5, "alias": "t"}}}')
    shape = read_results(path)
    assert flat_figures(shape) == {"lmms_eval.t.acc,strict": 1.0, "lmms_eval.t.acc": 0.5}
    assert shape["tasks"]["t"]["figures"]["acc"]["higher_is_better"] is None
