"""Whole scripted runs through the console command, Prefect included; killed, and gone on with."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from storage.run_store import RunStore
from storage.tables import content_sha256
from tests.scripted_run import files_below, write_recipe

ROOT = Path(__file__).parents[2]
RUN = "mine"

# The command, with a method of a scripted component replaced for one call: the process kills
# itself there, or says that it is there and waits to be stopped.
COMMAND = """
import os, signal, sys, time
from importlib import import_module
module, owner, method, call, act = sys.argv[1:6]
del sys.argv[1:6]
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs us aside
owner = getattr(import_module(module), owner)
original, calls = getattr(owner, method), []
def wrapped(*args, **kwargs):
    calls.append(1)
    if len(calls) == int(call):
        if act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        print("WAITING", file=sys.stderr, flush=True)
        time.sleep(120)
    return original(*args, **kwargs)
setattr(owner, method, wrapped)
if os.environ.get("PLAIN"):
    from tests.scripted_run import without_prefect
    sys.modules.update(without_prefect())
from flows.cli import main
main()
"""
NOWHERE = ("csr.samplers.scripted", "ScriptedSampler", "sample_steps", "999999", "kill")
IN_SHARD_1 = ("csr.samplers.scripted", "ScriptedSampler", "sample_steps", "16", "kill")
IN_TRAINING = ("csr.trainers.scripted", "ScriptedTrainer", "train", "1", "kill")
WAIT_IN_TRAINING = (*IN_TRAINING[:-1], "wait")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("data"))


def start(data: Path, home: Path, place: tuple[str, ...], *, plain: bool) -> Any:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")},
        "PYTHONPATH": str(ROOT),
        "DO_NOT_TRACK": "1",
    }
    if plain:
        environment["PLAIN"] = "1"
    arguments = ["run", str(data), "--home", str(home), "--run-id", RUN, "--json"]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *place, *arguments],
        env=environment,
        cwd=home.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(data: Path, home: Path, place: tuple[str, ...] = NOWHERE, *, plain: bool) -> Any:
    process = start(data, home, place, plain=plain)
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def finished_stages(home: Path) -> dict[tuple[int, str, int], str]:
    store = RunStore(home)
    return {
        (number, stage.stage, stage.shard): stage.finished_at
        for number in store.iterations(RUN)
        for stage in store.attempt(RUN, number).manifest.read().stages
        if stage.status == "done"
    }


def contents(home: Path) -> dict[str, str]:
    store = RunStore(home)
    made = {}
    for number in (1, 2):
        attempt = store.attempt(RUN, number)
        made[f"{number} policy"] = attempt.manifest.read().policy_out["sha256"]
        for table in ("nodes", "responses", "pairs"):
            made[f"{number} {table}"] = content_sha256(attempt.path / table, table)
    return made


@pytest.mark.parametrize(
    ("place", "kept", "lost"),
    [
        (IN_SHARD_1, (1, "sample", 0), (1, "sample", 1)),
        (IN_TRAINING, (1, "pair", 0), (1, "train", 0)),
    ],
)
def test_a_killed_run_goes_on_where_it_was(
    data: Path,
    tmp_path: Path,
    place: tuple[str, ...],
    kept: tuple[int, str, int],
    lost: tuple[int, str, int],
) -> None:
    home = tmp_path / "home"
    assert run(data, home, place, plain=True).returncode == -signal.SIGKILL
    assert not RunStore(home).is_locked(RUN)
    before = finished_stages(home)
    assert kept in before
    assert lost not in before
    listed = subprocess.run(
        [
            sys.executable,
            "-c",
            "from flows.cli import main; main()",
            "ls",
            "--home",
            home,
            "--json",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert json.loads(listed.stdout)["runs"][0]["status"] == "suspended"

    assert run(data, home, plain=True).returncode == 0
    after = finished_stages(home)
    assert {key: after[key] for key in before} == before
    assert lost in after
    undisturbed = tmp_path / "undisturbed"
    assert run(data, undisturbed, plain=True).returncode == 0
    assert contents(home) == contents(undisturbed)
    assert [file for file in files_below(home) if file.suffix == ".tmp"] == []


@pytest.mark.slow
def test_prefect_names_the_run_and_survives_control_c(data: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    process = start(data, home, WAIT_IN_TRAINING, plain=False)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("WAITING"):
            break
    # To the whole process group, as a terminal does it.
    os.killpg(process.pid, signal.SIGINT)
    err = process.stderr.read()
    assert process.wait(timeout=300) == 130
    assert err.strip().splitlines()[-1] == "Interrupted. The same command resumes the run."
    assert "Traceback" not in err
    assert RunStore(home).run(RUN).status == "suspended"
    before = finished_stages(home)
    assert (1, "pair", 0) in before

    done = run(data, home, plain=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "done"
    assert "Traceback" not in done.stderr
    after = finished_stages(home)
    assert {key: after[key] for key in before} == before
    _check_names(home / ".prefect" / "prefect.db")
    assert not (tmp_path / ".prefect").exists()


def _check_names(database: Path) -> None:
    """What the flow page lists, from the database that the run left behind."""
    copy = database.with_name("copy.db")
    for suffix in ("", "-wal", "-shm"):
        if Path(f"{database}{suffix}").exists():
            shutil.copy(f"{database}{suffix}", f"{copy}{suffix}")
    with sqlite3.connect(copy) as connection:
        flows = {name for (name,) in connection.execute("select name from flow")}
        runs = {name for (name,) in connection.execute("select name from flow_run")}
        states = connection.execute("select state_type from flow_run").fetchall()
        tasks = {name for (name,) in connection.execute("select name from task_run")}
        logs = {line for (line,) in connection.execute("select message from log")}
    assert flows == {"csr-run", "csr-iteration"}
    assert runs == {RUN, f"{RUN} 00", f"{RUN} 01", f"{RUN} 02"}
    assert ("COMPLETED",) in states
    shards = {f"sample {number:02d} shard {shard}" for number in (1, 2) for shard in range(3)}
    stages = {f"{s} {number:02d}" for s in ("measure", "pair", "train") for number in (1, 2)}
    assert f"{RUN}/01.1 pair: started" in logs
    assert any(line.startswith(f"{RUN}/02.1 evaluate: done in") for line in logs)
    assert shards | stages | {"evaluate 00", "evaluate 01", "evaluate 02"} <= tasks


def test_a_model_without_a_processor_is_refused(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "recipe.yaml"
    other.write_text(data.read_text().replace("sampler: scripted", "sampler: transformers"))
    answer = run(other, tmp_path / "home", plain=True)
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: ")
    assert "policy" in answer.stderr
    assert files_below(tmp_path / "home") == []
