"""POVID from prompts to policy, with vLLM, open_clip, TRL and PEFT on the smallest tiny world."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from csr.world.settings import Config as WorldConfig
from storage.run_store import RunStore
from storage.tables import read_table
from tests.prefect_service import ROOT, command

pytestmark = pytest.mark.slow

RUN = "mine"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny recipe, on a world whose models know nothing."""
    folder = tmp_path_factory.mktemp("povid")
    recipe = yaml.safe_load((ROOT / "recipes/povid_tiny.yaml").read_text())
    recipe["world"] = json.loads(WorldConfig.micro().model_dump_json())
    recipe["data"]["num_prompts_per_iteration"] = 16
    recipe |= {"shard_size": 8, "gates": None, "evaluation": recipe["evaluation"][:1]}
    recipe["source"]["num_rewrites"] = 8
    (folder / "povid.yaml").write_text(yaml.safe_dump(recipe))
    done = csr(folder, "run", folder / "povid.yaml", "--run-id", RUN)
    assert done.returncode == 0, done.stderr
    return folder / "home"


def csr(folder: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CSR_"))}
    return subprocess.run(
        command(*arguments, "--home", folder / "home"),
        env=plain | {"PYTHONPATH": str(ROOT), "CSR_CACHE": str(folder / "cache")},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


def rows(home: Path, attempt: int, table: str) -> list[dict[str, Any]]:
    found = RunStore(home).attempt(RUN, 1, attempt)
    return read_table(getattr(found, table), table).to_pylist()


def test_references_are_preferred_to_their_rewrites(home: Path) -> None:
    attempt = RunStore(home).attempt(RUN, 1)
    manifest = attempt.manifest.read()
    assert {stage.stage for stage in manifest.stages} == {
        "sample", "pair", "train", "evaluate", "gate",
    }  # fmt: skip
    pairs = rows(home, 1, "pairs")
    pairing = next(stage for stage in manifest.stages if stage.stage == "pair")
    assert pairs
    assert len(pairs) + sum(pairing.skipped.values()) == 16
    for pair in pairs:
        assert pair["chosen_text"] == pair["reference"]
        assert pair["rejected_text"] != pair["reference"]
        assert pair["margin"] in (1.0, 2.0)
    assert (Path(manifest.policy_out["model_path"]) / "model.safetensors").exists()


def test_a_given_text_is_scored_as_the_policy_would_say_it(home: Path) -> None:
    """Its tokens end with the end token, and the trainer found the same probabilities."""
    manifest = RunStore(home).attempt(RUN, 1).manifest.read()
    train = next(stage for stage in manifest.stages if stage.stage == "train")
    assert train.metrics["probe_largest_error"] < 1e-3
    nodes = rows(home, 1, "nodes")
    ends = {row["token_ids"][-1] for row in nodes}
    assert len(ends) == 1
    assert all(row["token_ids"].count(next(iter(ends))) == 1 for row in nodes)
    assert all(row["sum_logprob"] < 0 for row in nodes)


def test_pairs_are_made_anew_from_what_is_stored(home: Path) -> None:
    done = csr(home.parent, "rerun", f"{RUN}/01", "--from", "pair", "--until", "pair")
    assert done.returncode == 0, done.stderr
    assert rows(home, 2, "pairs") == rows(home, 1, "pairs")
