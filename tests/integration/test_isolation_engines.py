"""Child processes with what is real: Prefect, which shows the retry, and vLLM and TRL."""

import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from storage.run_store import RunStore
from tests.isolated_run import RUN, start
from tests.processes import all_gone, below, wait_until
from tests.scripted_run import write_recipe
from tests.tiny_models import make_llava

pytestmark = pytest.mark.slow


def test_prefect_stops_in_order_and_shows_the_second_try(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data", num_iterations=1)
    home, journal = tmp_path / "home", tmp_path / "journal"
    journal.touch()
    process = start(recipe, home, journal, "hang", 1)
    wait_until(lambda: "hang" in journal.read_text())
    processes = below(process.pid, 4)  # Prefect's server, the guard, the child, its own child
    # To the flow's process alone: so does Prefect when a run is cancelled.
    process.terminate()
    err = process.communicate(timeout=120)[1]
    assert process.returncode == 143, err
    assert err.splitlines()[-1] == "Interrupted. The same command resumes the run."
    wait_until(lambda: all_gone(processes))

    process = start(recipe, home, journal, "kill", 1)
    err = process.communicate(timeout=300)[1]
    assert process.returncode == 0, err
    assert "Trying once more, in smaller batches. EngineLost: " in err
    lines = journal.read_text().split("\n")[:-1]
    second_try = ["kill", "start", "search 1", "search 1", "search 2", "start", "start"]
    assert lines[lines.index("kill") :] == second_try
    tries = counts_of_tries(home / ".prefect" / "prefect.db")
    assert tries["sample 01 shard 1"] == 2
    assert tries["sample 01 shard 2"] == tries["train 01"] == 1


def counts_of_tries(database: Path) -> dict[str, int]:
    """Of each task, as its latest run's page shows it."""
    copy = database.with_name("copy.db")
    for suffix in ("", "-wal", "-shm"):
        if Path(f"{database}{suffix}").exists():
            shutil.copy(f"{database}{suffix}", f"{copy}{suffix}")
    with sqlite3.connect(copy) as connection:
        rows = connection.execute("select name, run_count from task_run order by created")
        return dict(rows.fetchall())


def test_a_run_with_vllm_and_trl_survives_a_killed_engine(tmp_path: Path) -> None:
    make_llava(tmp_path / "llava")
    recipe = write_recipe(tmp_path / "data", **REAL, policy={"model": str(tmp_path / "llava")})
    home, journal = tmp_path / "home", tmp_path / "journal"
    journal.touch()
    process = start(recipe, home, journal, "", 0, PLAIN="1")
    told = lines_until(process, f"{RUN}/01.1 sample shard 1: started")
    engine(process.pid).kill()
    told += process.communicate(timeout=600)[1]
    assert process.returncode == 0, told
    assert "its process was ended by SIGKILL" in told
    manifest = RunStore(home).attempt(RUN, 1).manifest.read()
    stages = {(stage.stage, stage.shard): stage for stage in manifest.stages}
    assert {stage.status for stage in stages.values()} == {"done"}
    assert len(stages) == 1 + 3 + 4  # pair, train, evaluate, gate
    assert stages["train", 0].metrics["probe_largest_error"] < 1e-3


REAL: dict[str, Any] = {
    "num_iterations": 1,
    "sampler": {"name": "vllm", "kv_cache_gib": 0.25},
    "similarity": None,
    "reward": {"image_weight": 0.0},
    "trainer": {
        "name": "dpo",
        "learning_rate": 1e-3,
        "batch_size": 2,
        "gradient_accumulation_steps": 1,
        "warmup_ratio": 0.0,
        "lora_rank": 8,
        "lora_alpha": 16,
    },
    "evaluation": [],
}


def lines_until(process: "subprocess.Popen[str]", end: str) -> str:
    assert process.stderr is not None
    told = ""
    for line in process.stderr:
        told += line
        if line.rstrip().endswith(end):
            break
    return told


def engine(pid: int) -> psutil.Process:
    """The stage process: the guard's only child."""
    (guard,) = psutil.Process(pid).children()
    (worker,) = guard.children()
    return worker
