"""The files below deploy/ say what the code says; and the tools that read them do read them."""

import json
import re
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from flows import environment
from tests.deploy_files import (
    COMPOSE,
    DEPLOY,
    EXAMPLES,
    HELM,
    IMAGES,
    ROOT,
    all_environments,
    document,
    example,
    image_environment,
    prefect_variables,
    read,
)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PREFECT_HEARTBEAT_SECONDS = 180
"""Prefect's default: pods have no `csr worker` that would make it shorter."""
AWKWARD = 'two\nlines, "quotes" and C:\\back\\slashes'


def prefect_version() -> str:
    pin = next(each for each in PROJECT["dependencies"] if each.startswith("prefect=="))
    return pin.removeprefix("prefect==")


# ---------------------------------------------------------------- deployments


def test_every_deployment_is_a_flow_that_takes_its_parameters() -> None:
    from prefect import Flow

    from flows import run

    deployments = document("prefect.yaml")["deployments"]
    assert {each["name"] for each in deployments} == {"csr-run", "csr-iteration", "csr-evaluate"}
    for each in deployments:
        path, function = each["entrypoint"].split(":")
        assert path == "flows/run.py"
        flow = getattr(run, function)
        assert isinstance(flow, Flow)
        assert flow.name == each["name"]
        if "parameters" in each:
            asked = flow.validate_parameters(each["parameters"])["request"]
            assert (ROOT / asked.recipe).exists()


def test_deployments_use_the_pool_and_queues_that_csr_deploy_makes() -> None:
    from flows.deploying import QUEUES, WORK_POOL

    pools = [each["work_pool"] for each in document("prefect.yaml")["deployments"]]
    assert {pool["name"] for pool in pools} == {WORK_POOL}
    assert {pool["work_queue_name"] for pool in pools} == QUEUES.keys()
    assert QUEUES["rerun"] < QUEUES["default"]


def test_deploying_again_touches_no_schedule() -> None:
    """Prefect would set a schedule of the file back, and remove those made elsewhere."""
    assert not any("schedules" in each for each in document("prefect.yaml")["deployments"])


def test_a_run_starts_in_the_checkout_of_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (step,) = document("prefect.yaml")["pull"]
    assert step == {"flows.checkout.enter_checkout": {}}
    from flows.checkout import enter_checkout

    monkeypatch.chdir(tmp_path)
    assert enter_checkout() == {"directory": str(ROOT)}
    assert Path.cwd() == ROOT


# ---------------------------------------------------------------- automations


def automations() -> dict[str, Any]:
    return {each["name"]: each for each in document("automations.yaml")["automations"]}


def test_prefect_takes_every_automation() -> None:
    from prefect.events.schemas.automations import AutomationCore

    assert len(automations()) == len(document("automations.yaml")["automations"]) == 6
    for wanted in automations().values():
        actions = [dict(action) for action in wanted["actions"]]
        for action in actions:
            if action.pop("block", None):
                action["block_document_id"] = str(uuid.uuid4())
        AutomationCore.model_validate({**wanted, "actions": actions})


def test_automations_speak_of_our_flows_and_events() -> None:
    from flows import events

    flows = {each["name"] for each in document("prefect.yaml")["deployments"]}
    ours = {
        events.STAGE_FINISHED, events.GATE_TRIPPED, events.RUN_ENDED, events.VERDICTS_WANTED,
    }  # fmt: skip
    seen = set()
    for wanted in automations().values():
        trigger = wanted["trigger"]
        if "match_related" in trigger:
            assert set(trigger["match_related"]["prefect.resource.name"]) == flows
        seen |= {*trigger.get("after", []), *trigger["expect"]}
    assert {event for event in seen if event.startswith("csr.")} == ours


def test_silence_lasts_three_heartbeats_before_a_run_counts_as_dead() -> None:
    wanted = automations()["csr-silent-runs-crashed"]
    assert wanted["trigger"]["within"] >= 3 * PREFECT_HEARTBEAT_SECONDS


def test_only_a_deployments_own_run_is_started_again() -> None:
    """A subflow has no deployment, and Prefect cannot start it."""
    related = automations()["csr-crashed-runs-go-on"]["trigger"]["match_related"]
    assert related["prefect.resource.role"] == ["deployment"]


@pytest.mark.parametrize(
    "name", ["csr-tell-failure", "csr-tell-held", "csr-tell-waiting", "csr-tell-stall"]
)
def test_a_message_is_json_whatever_it_says(name: str) -> None:
    (action,) = automations()[name]["actions"]
    known = {
        "flow_run": {"name": "mine", "state": {"message": AWKWARD}},
        "event": {
            "payload": {"attempt": "mine/01.1", "reason": AWKWARD, "message": AWKWARD},
            "resource": {"name": AWKWARD},
        },
    }
    strict = jinja2.Environment(undefined=jinja2.StrictUndefined)
    said = json.loads(strict.from_string(action["payload"]).render(known))
    assert said.keys() == {"text"}
    assert AWKWARD in said["text"]


# ---------------------------------------------------------------- one version, one environment


def test_one_release_of_prefect_everywhere() -> None:
    wanted = prefect_version()
    assert document("prefect.yaml")["prefect-version"] == wanted
    assert f'"prefect=={wanted}"' in read("server.Dockerfile")
    assert f"\nprefect=={wanted}\n" in read("setup/constraints-cpu.txt")
    tag = document(HELM[1])["worker"]["image"]["prefectTag"]
    assert tag.split("-")[0] == wanted


def test_images_bear_the_release() -> None:
    release = PROJECT["version"]
    services = [service for name in COMPOSE for service in document(name)["services"].values()]
    tags = [each["image"] for each in services if each.get("image", "").startswith("csr-")]
    tags += re.findall(r"registry\.example\.org/(\S+?)\"", read("helm/gpu-job-template.json"))
    server = document(HELM[0])["global"]["prefect"]["image"]
    tags.append(f"{Path(server['repository']).name}:{server['prefectTag']}")
    assert len(tags) == 8
    assert {tag.split(":")[0] for tag in tags} == {"csr-server", "csr-worker"}
    assert {tag.split(":")[1].removesuffix("-cpu").removesuffix("-cuda") for tag in tags} == {
        release
    }


def test_prefect_knows_every_setting() -> None:
    """A misspelt setting is no error to Prefect: it has no effect."""
    known = prefect_variables()
    assert "PREFECT_API_URL" in known
    found = all_environments()
    given = {name for each in found.values() for name in each if name.startswith("PREFECT_")}
    given -= {"PREFECT_AUTH"}  # compose's own, for both sides
    assert len(given) > 15
    assert given - known == set()


def test_the_image_sets_what_the_csr_command_sets() -> None:
    """On Kubernetes Prefect starts flows without that command."""
    ours = image_environment("Dockerfile")
    wanted = environment.settings(Path("/data/runs"))
    assert {name: ours[name] for name in ours if name in wanted} == {
        name: wanted[name] for name in ours if name in wanted
    }
    assert {
        "DO_NOT_TRACK", "VLLM_NO_USAGE_STATS", "PREFECT_HOME", "PREFECT_RESULTS_DEFAULT_SERIALIZER",
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH", "PREFECT_LOGGING_EXTRA_LOGGERS",
    } <= ours.keys()  # fmt: skip


def test_no_secret_stands_in_a_file() -> None:
    secrets = re.compile("PASSWORD|AUTH|TOKEN|NOTIFY_URL")
    for name, variables in all_environments().items():
        for variable, value in variables.items():
            if secrets.search(variable):
                assert value == "" or value.startswith("${"), f"{name}: {variable}"
    arguments = re.findall(r"^ARG (\w+)", "".join(map(read, IMAGES)), re.MULTILINE)
    assert set(arguments) == {"EXTRA", "WITH", "PIP_EXTRA_INDEX_URL"}


# ---------------------------------------------------------------- images


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("hadolint")
    return subprocess.run([program, path], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", IMAGES)
def test_hadolint_has_nothing_to_say(name: str) -> None:
    answer = hadolint(DEPLOY / name)
    assert (answer.returncode, answer.stdout) == (0, "")


def test_hadolint_sees_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /tmp && sudo ls\n")
    answer = hadolint(tmp_path / "Dockerfile")
    assert answer.returncode == 1
    assert "DL3007" in answer.stdout


def test_an_image_holds_all_that_the_package_links_to() -> None:
    """Of the checkout only what .dockerignore lets in comes into an image."""
    let_in = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    ]
    links = [path for path in (ROOT / "flows" / "files").rglob("*") if path.is_symlink()]
    assert len(links) == 4
    for link in links:
        target = link.resolve().relative_to(ROOT).as_posix()
        assert any(target == each or target.startswith(f"{each}/") for each in let_in), target


# ---------------------------------------------------------------- all


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.yaml")), ids=lambda path: path.name)
def test_yaml_has_no_key_twice(path: Path) -> None:
    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader: Strict, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.value != "<<"]
        assert len(keys) == len(set(keys)), f"{path.name}: {keys}"
        loader.flatten_mapping(node)
        return loader.construct_mapping(node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    assert yaml.load(path.read_text(), Strict)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_file_that_is_copied_and_filled_in_is_an_example(name: str) -> None:
    assert example(name)
    assert "deploy/.env" in (ROOT / ".gitignore").read_text().splitlines()
