"""A tripped gate holds its iteration: told everywhere, nothing lost, and a person may overrule."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.scripted_run import Csr, write_recipe

RUN = "mine"

# A scripted policy's captions grow from 1.7 sentences to more than twice as many.
ONLY_LENGTH = {
    "max_recall_drop": None, "max_repetition_rise": None, "max_distinct_drop": None,
    "max_empty_rise": None, "max_truncated_rise": None, "max_hallucination_rise": None,
    "min_margin_share": None, "max_training_margin": None, "max_equal_share": None,
    "max_pair_length_difference": None, "max_kl_nats_per_token": 1e6, "reward_hacking": False,
}  # fmt: skip


def run(csr: Csr, tmp_path: Path, **gates: Any) -> Any:
    recipe = write_recipe(tmp_path / "data", gates={**ONLY_LENGTH, **gates})
    return csr("run", recipe, "--home", tmp_path / "home", "--run-id", RUN)


def ask(csr: Csr, tmp_path: Path, *arguments: object) -> Any:
    answer = csr(*arguments, "--home", tmp_path / "home", "--json")
    assert answer.status == 0, answer.err
    return answer.json()


def manifest(tmp_path: Path, number: int, attempt: int = 1) -> Any:
    folder = tmp_path / "home" / RUN / f"iterations/{number:02d}/attempts/{attempt}"
    return json.loads((folder / "manifest.json").read_text())


def test_a_held_iteration_stops_the_run_and_says_why(csr: Csr, tmp_path: Path) -> None:
    answer = run(csr, tmp_path, max_recall_drop=0.05)  # of which nothing is measured
    assert answer.status == 1
    assert "mine/01.1 is held, and the policy before it stays current" in answer.err
    assert "length_drift_sentences is 1.2, past 0.2: Responses changed in length" in answer.err
    assert "csr promote mine/01.1" in answer.err
    assert "Traceback" not in answer.err
    listed = ask(csr, tmp_path, "ls", RUN)
    assert listed["status"] == "held"
    assert [(i["iteration_id"], i["status"]) for i in listed["iterations"]] == [("mine/01", "held")]
    shown = ask(csr, tmp_path, "show", f"{RUN}/01")
    gates = {gate["gate"]: gate for gate in shown["gates"]}
    assert [name for name, gate in gates.items() if gate["tripped"]] == [
        "length_drift_sentences", "length_drift_tokens",
    ]  # fmt: skip
    assert gates["length_drift_sentences"]["value"] == pytest.approx(2 / 1.6667, rel=1e-3)
    assert gates["kl_nats_per_token"]["value"] is not None
    report = (tmp_path / "home" / RUN / "report.html").read_text()
    assert "mine/01.1 is held" in report
    assert '<strong class="problem">tripped.</strong>' in report
    assert csr("show", f"{RUN}/01", "--home", tmp_path / "home").out.count("Responses changed") == 2

    again = run(csr, tmp_path, max_recall_drop=0.05)
    assert again.status == 1
    assert "mine/01.1 is held" in again.err

    limit = "1.2, at most 0.2: Responses changed"
    assert limit in csr("show", f"{RUN}/01", "--home", tmp_path / "home").out
    assert "not measured, at most 0.05" in csr("show", f"{RUN}/01", "--home", tmp_path / "home").out
    caution = "mine/01.1 is held by a gate, so the run does not go on from it"
    assert ask(csr, tmp_path, "compare", RUN)["cautions"] == [caution]
    assert caution in csr("compare", RUN, "--home", tmp_path / "home").out
    assert f"Caution: {caution}" in report


def test_the_loop_goes_on_from_the_policy_before_where_the_recipe_says_so(
    csr: Csr, tmp_path: Path
) -> None:
    answer = run(csr, tmp_path, on_trip="continue")
    assert answer.status == 0
    assert "warning: mine/01.1 is held." in answer.err
    assert manifest(tmp_path, 2)["policy_in"] == manifest(tmp_path, 0)["policy_out"]
    listed = ask(csr, tmp_path, "ls", RUN)
    assert [i["status"] for i in listed["iterations"]] == ["held", "held"]
    assert listed["status"] == "done"
    assert "finished already" in run(csr, tmp_path, on_trip="continue").err


def test_a_person_may_overrule_a_gate(csr: Csr, tmp_path: Path) -> None:
    run(csr, tmp_path, max_length_drift=1.3)
    held = ask(csr, tmp_path, "ls", RUN)["iterations"]
    assert [i["status"] for i in held] == ["done", "done"]

    run(csr, tmp_path / "other")
    promoted = ask(csr, tmp_path / "other", "promote", f"{RUN}/01.1")
    assert promoted["stale"] == []
    answer = run(csr, tmp_path / "other")
    assert answer.status == 1
    assert "mine/02.1 is held" in answer.err
    first, second = (manifest(tmp_path / "other", number) for number in (1, 2))
    assert second["policy_in"] == first["policy_out"]


def test_a_rerun_with_other_gates_judges_the_same_figures(csr: Csr, tmp_path: Path) -> None:
    run(csr, tmp_path)
    options = ("--from", "gate", "--set", "gates.max_length_drift=null")
    shape = ask(csr, tmp_path, "rerun", f"{RUN}/01", *options)
    assert shape["status"] == "done"
    assert "length_drift_sentences" not in {gate["gate"] for gate in shape["gates"]}
    assert shape["metrics"] == ask(csr, tmp_path, "show", f"{RUN}/01.1")["metrics"]
    assert ask(csr, tmp_path, "promote", f"{RUN}/01.2")["attempt"] == 2
    answer = run(csr, tmp_path)
    assert "mine/02.1 is held" in answer.err


def test_weights_that_are_no_numbers_are_held(
    csr: Csr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import gating

    monkeypatch.setattr(gating, "_mean_log_ratio", lambda *args: float("nan"))
    answer = run(csr, tmp_path, max_length_drift=None)
    assert answer.status == 1
    assert "No finite number: divergence.kl" in answer.err
    tripped = [g for g in ask(csr, tmp_path, "show", f"{RUN}/01")["gates"] if g["tripped"]]
    assert [gate["gate"] for gate in tripped] == ["finite", "kl_nats_per_token"]
