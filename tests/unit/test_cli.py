"""What the verbs print: JSON shapes, tables, help, and what a mistake is told."""

import importlib.metadata
import json
import shutil
from pathlib import Path

import pytest

from flows.base_name import base_name
from flows.tracing import trace
from storage.run_store import RunStore
from tests.scripted_run import Answer, Csr, Silent, write_recipe

RUN = "mine"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as monkeypatch:
        csr = Csr(monkeypatch, Silent())  # type: ignore[arg-type]
        recipe = write_recipe(folder / "data")
        assert csr("run", recipe, "--home", folder / "home", "--run-id", RUN).status == 0
    return folder / "home"


def test_ls_lists_runs(csr: Csr, home: Path) -> None:
    answer = csr("ls", "--home", home, "--json")
    run = {"run_id": RUN, "recipe": "scripted", "status": "done", "num_iterations": 2}
    assert answer == Answer(0, json.dumps({"runs": [run]}) + "\n", "")
    assert RUN in csr("ls", "--home", home).out
    assert csr("ls", "--home", home / "none", "--json").json() == {"runs": []}
    told = " ".join(csr("ls", "--home", home / "none").out.split())
    assert f"No run is in {home / 'none'} yet" in told
    assert "If your runs lie elsewhere, give --home or set CSR_HOME." in told


def test_ls_of_a_run_lists_its_iterations(csr: Csr, home: Path) -> None:
    answer = csr("ls", RUN, "--home", home, "--json")
    shape = answer.json()
    assert answer.err == ""
    assert shape.keys() == {"run_id", "status", "prompts", "base", "iterations", "other_attempts"}
    assert shape["base"].keys() == {"name", "status", "failed", "metrics"}
    assert (shape["base"]["name"], shape["other_attempts"]) == ("base", [])
    assert shape["base"]["metrics"]["num_captions"] == 3
    assert shape["prompts"] == {"used": 12, "skipped": {}}
    assert [line["iteration_id"] for line in shape["iterations"]] == [f"{RUN}/01", f"{RUN}/02"]
    for line in shape["iterations"]:
        keys = {"iteration_id", "attempt", "num_attempts", "status", "failed", "metrics"}
        assert line.keys() == keys
        assert (line["attempt"], line["status"]) == (1, "done")
    table = csr("ls", RUN, "--home", home).out
    assert "mean_response_sentences" in table
    assert f"{RUN}/02" in table
    assert "other attempts" not in table


def test_show_tells_all_of_an_iteration(csr: Csr, home: Path) -> None:
    shape = csr("show", f"{RUN}/01", "--home", home, "--json").json()
    assert shape.keys() == {
        "iteration_id", "attempt", "num_attempts", "current", "rerun_of", "status", "metrics",
        "failed", "counts", "tables", "seconds", "policy", "gates",
        "benchmarks", "lmms_eval",
    }  # fmt: skip
    counts = shape["counts"]
    assert counts["prompts"] == 6 == counts["pairs"] + sum(counts["skipped"].values())
    assert counts["pairs"] > 0
    assert shape["tables"].keys() == {"nodes", "responses", "pairs"}
    assert shape["tables"]["pairs"]["rows"] == counts["pairs"]
    assert len(shape["tables"]["pairs"]["content_sha256"]) == 64
    assert shape["seconds"].keys() == {"measure", "sample", "pair", "train", "evaluate", "gate"}
    assert Path(shape["policy"]["path"]).is_dir()
    assert len(shape["policy"]["sha256"]) == 64
    assert csr("show", f"{RUN}/01.1", "--home", home, "--json").json() == shape
    assert "counts.pairs" in csr("show", f"{RUN}/01", "--home", home).out


def test_a_failed_stage_says_why(csr: Csr, home: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(home, tmp_path / "home"))
    manifest = RunStore(home).attempt(RUN, 2).manifest
    stage = manifest.read().stage("sample", 1)
    assert stage is not None
    why = "EnvironmentFault: the disk [/data] is full"
    manifest.record(stage.model_copy(update={"status": "failed", "message": why, "files": ()}))
    manifest.update(status="failed")
    failed = [{"stage": "sample", "shard": 1, "message": why}]
    listed = csr("ls", RUN, "--home", home, "--json").json()
    assert [line["failed"] for line in (listed["base"], *listed["iterations"])] == [[], [], failed]
    assert csr("show", f"{RUN}/02", "--home", home, "--json").json()["failed"] == failed
    line = f"sample, shard 1: {why}"
    assert f"{RUN}/02 failed in {line}" in csr("ls", RUN, "--home", home).out
    assert line in csr("show", f"{RUN}/02", "--home", home).out

    manifest.update(status="running")  # it is being done again
    assert csr("show", f"{RUN}/02", "--home", home, "--json").json()["failed"] == []


def test_every_plotted_figure_has_its_line(csr: Csr, home: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(home, tmp_path / "home"))
    figures = {"amber_f1": 0.875, "multiple_choice_accuracy": 0.625, "rationale_rouge_l": 0.375}
    RunStore(home).attempt(RUN, 1).manifest.update(metrics=figures)
    RunStore(home).attempt(RUN, 0).manifest.update(metrics=figures)
    table = csr("ls", RUN, "--home", home).out
    for name, value in figures.items():
        assert name in table
        assert f" {value} " in table
    told = csr("compare", RUN, "--home", home).out
    assert "amber_f1" in told


def test_trace_follows_a_prompt(csr: Csr, home: Path) -> None:
    shape = csr("trace", RUN, "7", "--home", home, "--json").json()
    assert shape["iteration_id"] == f"{RUN}/02"
    assert shape["prompt"]["text"] == "Describe the image."
    depths = {node["depth"] for node in shape["nodes"]}
    assert depths == set(range(1, max(depths) + 1))
    assert {node["prompt_id"] for node in shape["nodes"]} == {"7"}
    assert shape["responses"]
    assert shape["nodes"][0]["text"].strip() in csr("trace", RUN, "7", "--home", home).out
    assert trace(home, RUN, "1")["iteration_id"] == f"{RUN}/01"


def test_trace_shows_the_pair_where_there_is_one(csr: Csr, home: Path) -> None:
    shapes = [trace(home, RUN, str(number)) for number in range(12)]
    [paired, *_] = [shape for shape in shapes if shape["pairs"]]
    [pair] = paired["pairs"]
    assert pair["chosen_reward"] > pair["rejected_reward"]
    view = csr("trace", RUN, paired["prompt"]["prompt_id"], "--home", home).out
    assert f"chosen: {pair['chosen_text']}" in " ".join(view.split())


def test_the_version_is_that_of_the_package(csr: Csr) -> None:
    assert csr("--version").out.strip() == importlib.metadata.version("csr")


def test_a_base_that_is_not_evaluated_is_not_done(csr: Csr, home: Path) -> None:
    copied = home.parent / "killed"
    shutil.copytree(home, copied)
    RunStore(copied).attempt(RUN, 0).manifest.update(status="running")
    assert csr("ls", RUN, "--home", copied, "--json").json()["base"]["status"] == "suspended"
    page = csr("report", RUN, "--home", copied, "--output", copied / "page.html")
    assert page.status == 0
    assert "suspended" in (copied / "page.html").read_text()


def test_an_evaluated_policy_is_called_by_its_name(csr: Csr, home: Path) -> None:
    copied = home.parent / "evaluated"
    shutil.copytree(home, copied)
    told = csr("evaluate", f"{RUN}/01.1", "--home", copied)
    assert told.status == 0, told.err
    assert f"{RUN}/01.1" in told.out
    assert "base" not in told.out
    [run_id] = [r["run_id"] for r in csr("ls", "--home", copied, "--json").json()["runs"]][1:]
    page = (copied / run_id / "report.html").read_text()
    assert f'<th scope="col">{RUN}/01.1</th>' in page
    assert '<th scope="col">base</th>' not in page
    assert base_name({"num_iterations": 0, "policy": {"model": "/models/mine"}}) == "mine"
    assert base_name({"num_iterations": 0, "policy": {"model": "lab/own-7b"}}) == "lab/own-7b"


def test_compare_and_report_print_one_object(csr: Csr, home: Path, tmp_path: Path) -> None:
    assert csr("compare", RUN, "--home", home, "--json").json()
    page = tmp_path / "page.html"
    answer = csr("report", RUN, "--home", home, "--output", page, "--json")
    assert answer.json() == {"run_id": RUN, "report": str(page)}
    assert page.read_text().startswith("<!")


def test_validate_prints_what_a_run_would_use(csr: Csr, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data")
    shape = csr("validate", recipe, "--set", "source.preset=released", "--json").json()
    assert shape["recipe"]["source"]["diversity"] == "branch_first_token"
    assert shape["recipe"]["reward"]["calibration"] == "sibling_rank"
    assert shape["recipe"]["source"]["max_steps"] == 4
    printed = tmp_path / "printed.yaml"
    printed.write_text(csr("validate", recipe, "--set", "source.preset=released").out)
    assert csr("validate", printed, "--json").json() == shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rnu",), 'Did you mean "run"?'),
        (("ls", "--jsno"), "Did you mean --json?"),
        (("run",), "requires an argument"),
        (("run", "missing.yaml"), "There is no recipe at missing.yaml"),
        (("ls", "mime"), "Did you mean 'mine'?"),
        (("ls", "../x"), "cannot name a run"),
        (
            ("ls", "mine/02"),
            "'mine/02' is an iteration, and a run is wanted here: mine. `csr show mine/02` shows",
        ),
        (
            ("trace", "mine/02.1", "1"),
            "'mine/02.1' is an iteration, and a run is wanted here: mine",
        ),
        (("show", "mine/02", "--home", "/no/home"), "in /no/home. It has no run at all. If your"),
        (("validate", "recipes/own_dta.yaml"), "Did you mean recipes/own_data.yaml?"),
        (("run", "own_data"), "Did you mean recipes/own_data.yaml?"),
        (("show", "mine"), "is not an iteration ID"),
        (("show", "mine/09"), "there is no mine/09"),
        (("show", "mine/01.2"), "there is no mine/01.2"),
        (("trace", "mine", "99"), "has no prompt '99'"),
        (("trace", "mine", "1", "--iteration", "2"), "iterations looked at: 2"),
        (("trace", "mine", "1", "--iteration", "9"), "there is no mine/09"),
        (("report", "other"), "there is no run 'other'"),
        (("report", "mine", "--output", "/tmp"), "it is a folder"),
        (("report", "mine", "--output", "/proc/none/page.html"), "its folder cannot be made"),
        (("compare",), "There are: mine"),
        (("ls", "--home", ""), "--home is empty"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(
    csr: Csr, home: Path, arguments: tuple[str, ...], message: str
) -> None:
    given = () if arguments == ("rnu",) or "--home" in arguments else ("--home", home)
    answer = csr(*arguments, *given, "--json")
    assert answer.status == 2
    assert message in " ".join(answer.err.replace("│", " ").split())
    assert "Traceback" not in answer.err
    assert answer.out == ""


def test_help_names_every_verb(csr: Csr) -> None:
    shown = csr("--help").out
    for verb in ("demo", "run", "validate", "ls", "show", "trace", "compare", "report", "doctor"):
        assert f"│ {verb} " in shown
    assert "--empty-set" not in csr("run", "--help").out
