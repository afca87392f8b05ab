"""The deployments on a real server, with a real worker: started, scheduled, stopped, killed."""

import importlib.metadata
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from csr.world.settings import Config as WorldConfig
from flows.label_studio import export_tasks
from flows.review import open_desk
from storage.run_store import RunStore
from tests import postgres
from tests.prefect_service import ROOT, Json, Service, prefect_service, wait_until, webhook
from tests.reviewed_run import write_reviewed_recipe
from tests.scripted_run import files_below, write_recipe

pytestmark = pytest.mark.slow

PICKLE_STARTS = tuple(bytes([0x80, protocol]) for protocol in (2, 3, 4, 5))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def deployed(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    told: tuple[str, list[Json]],
) -> Iterator[Service]:
    """A server that knows our deployments.

    On what one with workers should have, PostgreSQL; on SQLite, on which a minute is lost now and
    then, where there is no other. `make soak` takes both.
    """
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        soaks = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
        if not soaks and not postgres.unavailable():
            pytest.skip("`make soak` runs it on SQLite too")
        with prefect_service(folder) as service:
            yield _deploy(service, told[0])
        return
    if reason := postgres.unavailable():
        pytest.skip(reason)
    with postgres.postgres() as url, prefect_service(folder, url) as service:
        yield _deploy(service, told[0])


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[str, list[Json]]]:
    """Where automations post, and what they posted."""
    with webhook() as hook:
        yield hook


def _deploy(service: Service, url: str) -> Service:
    service.environment["CSR_NOTIFY_URL"] = url
    for _ in range(2):  # names are identities: the second time changes nothing
        done = service.csr("deploy", "--home", service.home)
        assert done.returncode == 0, done.stderr
    assert len(service.ask("/automations/filter", {})) == 6
    assert len(service.ask("/deployments/filter", {})) == 3
    return service


@pytest.fixture(scope="module")
def service(deployed: Service) -> Iterator[Service]:
    """The same, with a worker."""
    with deployed.worker():
        yield deployed


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("data"))


def long_recipe(folder: Path, seconds_per_request: float = 0.0) -> Path:
    """A run that is still sampling when somebody looks: a shard a prompt."""
    sampler = {"name": "scripted", "seconds_per_request": seconds_per_request}
    recipe = write_recipe(folder, num_iterations=1, shard_size=1, sampler=sampler)
    document = recipe.read_text().replace(
        "num_prompts_per_iteration: 6", "num_prompts_per_iteration: 12"
    )
    recipe.write_text(document)
    return recipe


def sampled(store: RunStore, run_id: str) -> dict[int, str]:
    """Shard of the first iteration -> when it was done."""
    if not store.has_run(run_id) or 1 not in store.iterations(run_id):
        return {}
    stages = store.attempt(run_id, 1).manifest.read().stages
    done = [record for record in stages if record.stage == "sample" and record.status == "done"]
    return {record.shard: record.finished_at for record in done}


def shards_done(service: Service, run_id: str) -> int:
    return len(sampled(RunStore(service.home), run_id))


def artifacts(service: Service) -> Json:
    return {each["key"]: each for each in service.ask("/artifacts/latest/filter", {})}


def test_a_killed_worker_and_its_run(deployed: Service, tmp_path: Path) -> None:
    """All die at once; the next worker says so, and the server has the run go on.

    First of these tests: no other worker may be there to take the run.
    """
    recipe = long_recipe(tmp_path / "data")
    with deployed.worker() as worker:
        asked = deployed.start("csr-run", {"recipe": str(recipe), "run_id": "killed"})
        wait_until(lambda: shards_done(deployed, "killed") >= 2, 300)
        for process in (psutil.Process(worker.pid), *psutil.Process(worker.pid).children(True)):
            process.send_signal(signal.SIGKILL)
    assert deployed.flow_run(asked)["state"]["type"] == "RUNNING"
    with deployed.worker():
        done = deployed.wait(asked, "COMPLETED", "FAILED", "CANCELLED")
    assert done["state"]["type"] == "COMPLETED"
    assert done["run_count"] >= 2  # on a busy SQLite, Prefect's worker may end and be started anew
    assert shards_done(deployed, "killed") == 12


def test_silence_is_noticed_and_the_run_goes_on(deployed: Service, tmp_path: Path) -> None:
    """As above, but nobody is left on the machine to tell: the heartbeats stop."""
    for automation in deployed.ask("/automations/filter", {}):
        if automation["name"] == "csr-silent-runs-crashed":
            automation["trigger"]["within"] = 35  # ten minutes are for production
            body = {key: automation[key] for key in ("name", "trigger", "actions", "enabled")}
            deployed.ask(f"/automations/{automation['id']}", body, method="PUT")
    recipe = long_recipe(tmp_path / "data")
    with deployed.worker() as worker:
        asked = deployed.start("csr-run", {"recipe": str(recipe), "run_id": "silent"})
        wait_until(lambda: shards_done(deployed, "silent") >= 2, 300)
        for process in (psutil.Process(worker.pid), *psutil.Process(worker.pid).children(True)):
            process.send_signal(signal.SIGKILL)

    def states() -> list[str]:
        body = {"flow_run_id": asked}
        found = deployed.ask(f"/flow_run_states/?flow_run_id={asked}", body, method="GET")
        return [state["name"] for state in found]

    wait_until(lambda: "AwaitingRetry" in states(), 400)
    assert "Crashed" in states()
    with deployed.worker():
        done = deployed.wait(asked, "COMPLETED", "FAILED", "CANCELLED")
    assert done["state"]["type"] == "COMPLETED"
    assert done["run_count"] >= 2
    assert shards_done(deployed, "silent") == 12


def test_a_run_completes_and_an_iteration_is_done_over_by_its_id(
    service: Service, recipe: Path
) -> None:
    first = service.start("csr-run", {"recipe": str(recipe), "run_id": "mine"})
    done = service.wait(first, "COMPLETED", "FAILED", "CRASHED")
    assert (done["state"]["type"], done["name"]) == ("COMPLETED", "mine")
    assert RunStore(service.home).run("mine").status == "done"
    names = {run["name"] for run in service.ask("/flow_runs/filter", {})}
    assert {"mine", "mine 00", "mine 01", "mine 02"} <= names
    told = artifacts(service)
    assert {"csr-figures-mine", "csr-pairs-mine-02", "csr-sampling-mine-01"} <= told.keys()
    figures = json.loads(told["csr-figures-mine"]["data"])
    stored = RunStore(service.home).attempt("mine", 2).manifest.read().metrics
    assert [row["attempt"] for row in figures] == ["mine/00.1", "mine/01.1", "mine/02.1"]
    assert figures[2]["distinct_2"] == round(stored["distinct_2"], 4)

    again = service.start("csr-iteration", {"iteration_id": "mine/02"})
    done = service.wait(again, "COMPLETED", "FAILED", "CRASHED")
    assert (done["state"]["type"], done["name"]) == ("COMPLETED", "mine 02 rerun")
    difference = json.loads(
        service.csr("diff", "mine/02.1", "mine/02.2", "--home", service.home, "--json").stdout
    )
    assert difference["policy_equal"]
    assert all(table["equal"] for table in difference["tables"].values())

    asked = service.start("csr-evaluate", {"target": "mine/02.2"})
    done = service.wait(asked, "COMPLETED", "FAILED", "CRASHED")
    assert (done["state"]["type"], done["name"]) == ("COMPLETED", "evaluate mine/02.2")
    listed = json.loads(service.csr("ls", "--home", service.home, "--json").stdout)["runs"]
    evaluated = next(run for run in listed if run["recipe"].startswith("evaluate"))
    base = json.loads(
        service.csr("ls", evaluated["run_id"], "--home", service.home, "--json").stdout
    )["base"]
    assert base["metrics"] == stored


def test_promoting_another_attempt_shows_what_is_stale(service: Service, recipe: Path) -> None:
    asked = service.start("csr-run", {"recipe": str(recipe), "run_id": "lineage"})
    assert service.wait(asked, "COMPLETED", "FAILED")["state"]["type"] == "COMPLETED"
    request = {
        "iteration_id": "lineage/01", "from_stage": "train", "settings": ["trainer.num_epochs=3"],
    }  # fmt: skip
    asked = service.start("csr-iteration", request)
    assert service.wait(asked, "COMPLETED", "FAILED")["state"]["type"] == "COMPLETED"
    done = service.csr("promote", "lineage/01.2", "--home", service.home)
    assert done.returncode == 0, done.stderr
    rows = json.loads(artifacts(service)["csr-figures-lineage"]["data"])
    assert [(row["attempt"], row["status"]) for row in rows] == [
        ("lineage/00.1", "done"),
        ("lineage/01.1", "done, not current"),
        ("lineage/01.2", "done"),
        ("lineage/02.1", "stale"),
    ]

    asked = service.start("csr-run", {"recipe": str(recipe), "run_id": "lineage"})
    assert service.wait(asked, "COMPLETED", "FAILED")["state"]["type"] == "COMPLETED"
    rows = json.loads(artifacts(service)["csr-figures-lineage"]["data"])
    assert rows[-1]["attempt"] == "lineage/02.2"
    assert rows[-1]["status"] == "done"


def test_an_active_schedule_starts_runs(service: Service, recipe: Path) -> None:
    known = service.ask("/deployments/name/csr-run/csr-run", method="GET")
    assert known["schedules"] == []
    nightly = ("deploy", "--home", service.home, "--cron", "0 1 * * *")
    for _ in range(2):
        assert service.csr(*nightly).returncode == 0
    (night,) = service.ask(f"/deployments/{known['id']}/schedules", method="GET")
    assert (night["active"], night["schedule"]["cron"]) == (True, "0 1 * * *")
    bad = service.csr("deploy", "--home", service.home, "--cron", "nightly")
    assert (bad.returncode, "Traceback" in bad.stderr) == (2, False)
    parameters = {
        "request": {
            "recipe": str(recipe), "home": str(service.home), "run_id": "night-{date}",
        }
    }  # fmt: skip
    every_second = {"interval": 20.0, "anchor_date": "2026-01-01T00:00:00Z", "timezone": "UTC"}
    schedule = {"schedule": every_second, "active": True, "parameters": parameters}
    service.ask(f"/deployments/{known['id']}/schedules", [schedule])
    assert service.csr("deploy", "--home", service.home).returncode == 0  # leaves both as they are
    try:
        body = {
            "flow_runs": {
                "deployment_id": {"any_": [known["id"]]},
                "state": {"type": {"any_": ["COMPLETED"]}},
            }
        }

        def scheduled() -> Any:
            done = service.ask("/flow_runs/filter", body)
            return next((run for run in done if run["auto_scheduled"]), None)

        done = wait_until(scheduled, 180)
    finally:
        _remove_schedules(service, known["id"])
    under_way = {
        "flow_runs": {
            "deployment_id": {"any_": [known["id"]]},
            "state": {"type": {"any_": ["PENDING", "RUNNING"]}},
        }
    }
    wait_until(lambda: not service.ask("/flow_runs/filter", under_way), 180)  # others need the slot
    day = done["expected_start_time"][:10]
    assert done["name"].startswith("night-20")
    # A start that the schedule made meanwhile looks the run through once more.
    wait_until(lambda: RunStore(service.home).run(done["name"]).status == "done", 180)
    assert day  # the run's name follows the local day of this time


def _remove_schedules(service: Service, deployment_id: str) -> None:
    for each in service.ask(f"/deployments/{deployment_id}/schedules", method="GET"):
        if each["active"]:
            service.ask(f"/deployments/{deployment_id}/schedules/{each['id']}", method="DELETE")


def _logs_of_ended(service: Service, asked: str) -> list[str] | None:
    """Only what the worker logs once the flow's process is gone comes after all that this logs."""
    lines = service.logs(asked)
    return lines if any("exited with status code" in line for line in lines) else None


@pytest.mark.parametrize(
    ("deployment", "request_", "message"),
    [
        ("csr-run", {"recipe": "nowhere.yaml"}, "There is no recipe at nowhere.yaml"),
        ("csr-iteration", {"iteration_id": "mine-02"}, "'mine-02' is not an iteration ID"),
        ("csr-evaluate", {"target": "nowhere"}, "a model needs a recipe"),
    ],
)
def test_a_users_mistake_is_told_once_and_not_retried(
    service: Service, deployment: str, request_: dict[str, str], message: str
) -> None:
    asked = service.start(deployment, request_)
    done = service.wait(asked, "COMPLETED", "FAILED", "CRASHED")
    assert done["state"]["type"] == "FAILED"
    assert message in done["state"]["message"]
    assert done["run_count"] == 1
    logs = wait_until(lambda: _logs_of_ended(service, asked), 60)
    assert [line for line in logs if "Traceback" in line] == []


def test_failures_and_held_iterations_are_told(
    service: Service, told: tuple[str, list[Json]], tmp_path: Path
) -> None:
    gates = {"max_length_drift": 0.01, "max_kl_nats_per_token": None}
    recipe = write_recipe(tmp_path / "data", gates=gates)
    asked = service.start("csr-run", {"recipe": str(recipe), "run_id": "judged"})
    done = service.wait(asked, "COMPLETED", "FAILED", "CRASHED")
    assert (done["state"]["type"], done["state"]["name"]) == ("FAILED", "Held")
    assert "judged/01.1 is held" in done["state"]["message"]
    page = artifacts(service)["csr-gates-judged-01"]["data"]
    assert "| length_drift_sentences | **TRIPPED** |" in page

    def texts() -> str:
        return "\n".join(each["text"] for each in told[1])

    wait_until(lambda: "judged/01.1 is held: length_drift" in texts(), 90)
    wait_until(lambda: "There is no recipe at nowhere.yaml" in texts(), 90)


def test_a_run_that_waits_for_people_is_suspended_until_they_have_spoken(
    service: Service, told: tuple[str, list[Json]], tmp_path: Path
) -> None:
    if "sqlite" not in str(service.folder):
        pytest.skip("the database decides nothing here, and each start takes its time")
    recipe = write_reviewed_recipe(tmp_path / "data", num_responses=3)
    asked = service.start("csr-run", {"recipe": str(recipe), "run_id": "judged_by_ada"})
    waiting = service.wait(asked, "PAUSED", "COMPLETED", "FAILED", "CRASHED")
    assert (waiting["state"]["type"], waiting["state"]["name"]) == ("PAUSED", "Suspended")
    store = RunStore(service.home)
    wait_until(lambda: not store.is_locked("judged_by_ada"), 60)
    wait_until(lambda: not psutil.pid_exists(waiting["labels"]["csr.pid"]), 60)
    assert store.run("judged_by_ada").status == "waiting"

    def num_suspensions() -> int:
        states = service.ask(f"/flow_run_states/?flow_run_id={asked}", {}, method="GET")
        return sum(state["name"] == "Suspended" for state in states)

    service.ask(f"/flow_runs/{asked}/resume", {})  # too early: it waits again
    wait_until(lambda: num_suspensions() == 2, 120)

    tasks, home = tmp_path / "tasks.json", ("--home", service.home)
    export_tasks(open_desk(service.home, "judged_by_ada/01"), tasks)
    judged = json.loads(tasks.read_text())
    for number, task in enumerate(judged[:3]):
        choice = "accept" if number % 2 == 0 else "refuse"
        result = {"from_name": "verdict", "value": {"choices": [choice]}}
        task["annotations"] = [{"result": [result], "completed_by": {"email": "ada@example.org"}}]
    tasks.write_text(json.dumps(judged))
    done = service.csr("review", "judged_by_ada/01", *home, "--import", tasks)
    assert "The flow run goes on by itself: judged_by_ada." in done.stdout, done.stderr

    finished = service.wait(asked, "COMPLETED", "FAILED", "CRASHED")
    assert finished["state"]["type"] == "COMPLETED", finished["state"]["message"]
    assert finished["run_count"] == 1  # waking is no start: it may wait as often as it must
    manifest = store.attempt("judged_by_ada", 1).manifest.read()
    assert manifest.stage("review").metrics["num_accept"] == 2
    assert manifest.stage("pair").metrics["num_pairs"] == 1
    assert manifest.skipped() == {"too_few_responses": 5}
    texts = "\n".join(each["text"] for each in told[1])
    assert "judged_by_ada waits for people: judged_by_ada/01.1: 0 of 3" in texts


def test_the_tiny_world_runs_on_real_engines(service: Service, tmp_path: Path) -> None:
    """vLLM, open_clip, TRL and PEFT in the worker's flow run; the world is a micro one."""
    recipe = tmp_path / "micro.yaml"
    document = yaml.safe_load((ROOT / "recipes/tiny.yaml").read_text())
    document["world"] = json.loads(WorldConfig.micro().model_dump_json())
    document |= {"num_iterations": 1, "shard_size": 8, "num_statistics_prompts": 8}
    document["data"]["num_prompts_per_iteration"] = 16
    document["gates"] = None  # a model that knows nothing says anything
    document["source"]["pair_filter"] = {"require_eos": False, "max_length_difference": 1.0}
    recipe.write_text(yaml.safe_dump(document))
    asked = service.start("csr-run", {"recipe": str(recipe), "run_id": "micro"})
    done = service.wait(asked, "COMPLETED", "FAILED", "CRASHED", seconds=420)
    assert done["state"]["type"] == "COMPLETED", done["state"]["message"]
    manifest = RunStore(service.home).attempt("micro", 1).manifest.read()
    assert manifest.status == "done"
    assert "vllm" in " ".join(manifest.stages[0].packages)
    assert (Path(manifest.policy_out["model_path"]) / "model.safetensors").exists()


def test_no_module_of_ours_hides_a_package() -> None:
    """A deployment's flow is loaded with its own folder first on the path."""
    names = {path.stem for path in (ROOT / "flows").glob("*.py")}
    assert len(names) > 30
    assert not names & set(importlib.metadata.packages_distributions())


def test_the_form_is_checked_before_anything_starts(service: Service) -> None:
    with pytest.raises(AssertionError, match=r"409|422"):
        service.start("csr-iteration", {"iteration_id": "mine/02", "from_stage": "sampling"})
    with pytest.raises(AssertionError, match=r"409|422"):
        service.start("csr-run", {"receipt": "tiny.yaml"})


def test_cancelling_leaves_no_process_and_a_run_to_go_on_with(
    service: Service, tmp_path: Path
) -> None:
    recipe = long_recipe(tmp_path / "data", seconds_per_request=0.2)
    asked = service.start("csr-run", {"recipe": str(recipe), "run_id": "stopped"})
    wait_until(lambda: shards_done(service, "stopped") >= 2, 300)
    pid = service.flow_run(asked)["labels"]["csr.pid"]
    state = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False}
    service.ask(f"/flow_runs/{asked}/set_state", state)
    service.wait(asked, "CANCELLED", seconds=60)
    wait_until(lambda: not psutil.pid_exists(pid), 60)
    store = RunStore(service.home)
    assert not store.is_locked("stopped")
    assert store.run("stopped").status == "suspended"
    kept = sampled(store, "stopped")

    again = service.start("csr-run", {"recipe": str(recipe), "run_id": "stopped"})
    assert service.wait(again, "COMPLETED", "FAILED")["state"]["type"] == "COMPLETED"
    finished = sampled(store, "stopped")
    assert len(finished) == 12
    assert {shard: finished[shard] for shard in kept} == kept


def test_nothing_is_pickled_and_nothing_lies_elsewhere(service: Service) -> None:
    """Prefect's own default would pickle results, below the user's home."""
    left = files_below(service.home) + files_below(service.folder / "server")
    assert len(left) > 20
    for file in left:
        assert file.suffix not in (".pkl", ".pickle", ".pt", ".bin"), file
        with file.open("rb") as stream:
            assert not stream.read(2).startswith(PICKLE_STARTS), file
    # Engines keep caches in the user's folder; Prefect keeps nothing but this note of its own.
    elsewhere = files_below(service.folder / "user" / ".prefect")
    assert [file for file in elsewhere if file.name != "memo_store.toml"] == []
    assert os.path.isdir(service.home / ".prefect")
