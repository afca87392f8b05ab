"""Methods of whole responses, one an iteration of a single run, with the real engines.

The smallest tiny world, whose models know nothing: what is checked is that everything arrives and
is accounted for, not what is learnt.
"""

import html
import json
import os
import subprocess
from typing import Any

import pytest
import yaml

from csr.world.settings import Config as WorldConfig
from flows.reporting import write_report
from storage.manifest import IterationManifest
from storage.run_store import RunStore
from storage.tables import read_table
from tests.prefect_service import ROOT, command

pytestmark = pytest.mark.slow

RUN, NUM_PROMPTS = "mine", 8
SIMA, STIC, INFUSED, ILLUME = 1, 2, 3, 4


def world() -> dict[str, Any]:
    """The smallest, with as much training as it takes to end a sentence, and a response."""
    config = WorldConfig.micro()
    policy = config.policy.model_copy(
        update={"alignment_steps": 150, "abilities": ("look", "imagine", "explain", "judge")}
    )
    document: dict[str, Any] = json.loads(
        config.model_copy(update={"policy": policy}).model_dump_json()
    )
    return document


def recipe_of_all() -> dict[str, Any]:
    """SIMA, both stages of STIC, then ILLUME, from the recipes that are shipped."""
    sima, stic, illume = (
        yaml.safe_load((ROOT / f"recipes/{name}_tiny.yaml").read_text())
        for name in ("sima", "stic", "illume")
    )
    rates = {"num_epochs": 1, "learning_rate": 1e-3}
    sections = {
        STIC: {"source": stic["source"], "trainer": stic["trainer"]},
        INFUSED: {
            "source": stic["source"] | stic["per_iteration"][2]["source"],
            "trainer": stic["per_iteration"][2]["trainer"],
            "data": {"prompts": stic["per_iteration"][2]["data"]["prompts"]},
        },
        ILLUME: {
            # Whatever a policy says that knows nothing is accepted, but for silence.
            "critic": {"name": "rouge_l", "threshold": 0.0, "min_characters": 0},
            "source": illume["source"] | {"num_samples": 2},
            "trainer": illume["trainer"],
            "data": {"prompts": illume["data"]["prompts"]},
        },
    }
    for section in sections.values():
        section["source"]["max_response_tokens"] = 24
        section["trainer"] = section["trainer"] | rates
    return sima | {
        "num_iterations": 4,
        "world": world(),
        "data": sima["data"] | {"num_prompts_per_iteration": NUM_PROMPTS},
        "source": sima["source"] | {"verdict": "likelier", "max_response_tokens": 24},
        "trainer": sima["trainer"] | rates,
        "evaluation": [sima["evaluation"][1] | {"describe_first": "Describe the image."}],
        "gates": None,
        "per_iteration": sections,
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    folder = tmp_path_factory.mktemp("methods")
    (folder / "all.yaml").write_text(json.dumps(recipe_of_all()))  # JSON is YAML
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CSR_"))}
    done = subprocess.run(
        command("run", folder / "all.yaml", "--run-id", RUN, "--home", folder / "home"),
        env=plain | {"PYTHONPATH": str(ROOT), "CSR_CACHE": str(folder / "cache")},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return RunStore(folder / "home")


def manifest(store: RunStore, iteration: int) -> IterationManifest:
    return store.attempt(RUN, iteration).manifest.read()


def csr(store: RunStore, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        command(*arguments, "--home", store.home, "--json"),
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def rows(store: RunStore, iteration: int, table: str) -> list[dict[str, Any]]:
    return read_table(store.attempt(RUN, iteration).path / table, table).to_pylist()


def stage(store: RunStore, iteration: int, name: str) -> Any:
    found = manifest(store, iteration).stage(name)
    assert found is not None
    return found


@pytest.mark.parametrize("iteration", [SIMA, STIC, INFUSED, ILLUME])
def test_every_method_trains_and_loses_no_prompt(store: RunStore, iteration: int) -> None:
    trained = stage(store, iteration, "train")
    assert trained.metrics["probe_largest_error"] < 1e-3
    table = "pairs" if iteration in (SIMA, STIC) else "demonstrations"
    lessons = rows(store, iteration, table)
    used = {row["prompt_id"] for row in lessons if row.get("kind") not in ("replay", "answer")}
    assert len(used) + sum(stage(store, iteration, "pair").skipped.values()) == NUM_PROMPTS
    numbers = (iteration - 1, iteration)
    policies = [manifest(store, number).policy_out["sha256"] for number in numbers]
    assert policies[0] != policies[1]


def test_sima_keeps_what_its_critic_prefers_in_both_orders(store: RunStore) -> None:
    pairs = rows(store, SIMA, "pairs")
    assert pairs
    assert {(row["chosen_reward"], row["rejected_reward"]) for row in pairs} == {(2.0, 0.0)}


def test_stic_scores_both_sides_under_the_plain_prompt(store: RunStore) -> None:
    """The sampled texts came from other prompts and images; the pairs name none of them."""
    pairs = rows(store, STIC, "pairs")
    assert pairs
    assert {row["prompt_text"] for row in pairs} == {"Describe the image."}
    assert {row["image_corruption"] for row in pairs} == {None}
    corrupted = [
        part["value"]
        for row in rows(store, STIC, "nodes")
        for part in row["breakdown"]
        if part["name"] == "corrupted"
    ]
    assert {0.0, 1.0} >= set(corrupted)
    assert corrupted


def test_the_second_stage_of_stic_reads_its_own_prompts(store: RunStore) -> None:
    demonstrations = rows(store, INFUSED, "demonstrations")
    assert all(row["prompt_text"].startswith("Image description:\n") for row in demonstrations)
    assert {row["text"] for row in demonstrations} <= {"Yes.", "No."}
    assert {row["token_ids"] for row in demonstrations} == {None}


def test_illume_imitates_what_was_accepted_beside_its_answers(store: RunStore) -> None:
    annotations = rows(store, ILLUME, "annotations")
    assert {row["annotator"] for row in annotations} == {"rouge_l"}
    kinds = [row["kind"] for row in rows(store, ILLUME, "demonstrations")]
    assert kinds.count("rationale") == sum(row["verdict"] == "accept" for row in annotations) > 0
    assert kinds.count("answer") + kinds.count("replay") <= NUM_PROMPTS
    asked = {r["prompt_text"] for r in rows(store, ILLUME, "demonstrations")
             if r["kind"] == "rationale"}  # fmt: skip
    assert all(text.endswith("Yes. Describe it.") for text in asked)


def test_a_difference_between_demonstrations_is_told_by_prompt(store: RunStore) -> None:
    done = csr(store, "rerun", f"{RUN}/04", "--from", "pair", "--until", "pair",
               "--set", "source.rationale_weight=3")  # fmt: skip
    assert done["status"] == "suspended"
    change = csr(store, "diff", f"{RUN}/04.1", f"{RUN}/04.2")["demonstrations"]
    explained = {r["prompt_id"] for r in rows(store, ILLUME, "demonstrations")
                 if r["kind"] == "rationale"}  # fmt: skip
    assert set(change["changed"]) == explained
    assert change["added"] == change["removed"] == []


def test_the_report_shows_what_is_imitated(store: RunStore) -> None:
    page = write_report(store.home, RUN).read_text()
    assert "<h3>Iteration 3: " in page
    assert "<h3>Iteration 4: " in page
    said = next(
        r["text"] for r in rows(store, ILLUME, "demonstrations") if r["kind"] == "rationale"
    )
    assert html.escape(said) in page


def test_questions_are_asked_behind_a_description(store: RunStore) -> None:
    path = store.attempt(RUN, ILLUME).evaluation / "pope.parquet"
    texts = {row["prompt_text"] for row in read_table(path, "generations").to_pylist()}
    assert all(text.startswith("Image description:\n") for text in texts)
