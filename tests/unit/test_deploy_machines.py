"""What deploy/ has for machines: images, compose, systemd, Kubernetes."""

import configparser
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.deploy_files import (
    COMPOSE,
    DEPLOY,
    HELM,
    IMAGES,
    ROOT,
    document,
    example,
    placeholders,
    read,
)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UNITS = ("prefect-server.service", "csr-worker@.service", "csr-deploy.service")


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_somebody_with_an_init(name: str) -> None:
    lines = read(name).splitlines()
    (user,) = [line for line in lines if line.startswith("USER")]
    assert int(user.split()[1]) > 0
    assert 'ENTRYPOINT ["tini", "--"]' in lines  # and no program: Kubernetes gives its own
    assert any(line.startswith("HEALTHCHECK") for line in lines)


def test_an_image_holds_what_the_code_needs_and_nothing_else() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()
    assert all((ROOT / path).exists() for path in allowed)
    packages = {"csr", "rewards", "storage", "flows"}
    read_at_run_time = {"recipes", "deploy/prefect.yaml", "deploy/automations.yaml"}
    build = {"pyproject.toml", "README.md", "LICENSE", "deploy/setup", "deploy/worker_health.py"}
    assert allowed == packages | read_at_run_time | build


@pytest.mark.parametrize("name", IMAGES)
def test_hadolint_has_nothing_to_say(name: str) -> None:
    if not shutil.which("hadolint"):
        pytest.skip("hadolint is not installed")
    done = subprocess.run(
        ["hadolint", str(DEPLOY / name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------- compose


def test_compose_asks_for_what_the_example_names() -> None:
    used = set(re.findall(r"\$\{(\w+)", "".join(map(read, COMPOSE))))
    assert used <= example("env.example").keys()
    assert example("env.example").keys() - used == {"COMPOSE_PROJECT_NAME"}


def test_compose_is_reached_from_this_machine_alone() -> None:
    services = document("compose.yaml")["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:4200:4200"]
    assert services["server"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"].startswith("${")


def test_a_new_container_knows_its_runs_and_has_time_to_stop() -> None:
    worker = document("compose.yaml")["services"]["worker"]
    assert worker["hostname"]  # else each container has a name of its own, and its runs are lost
    assert worker["stop_grace_period"] == "2m"
    assert worker["shm_size"] == "16gb"


@pytest.mark.parametrize("files", [COMPOSE[:1], COMPOSE])
def test_docker_compose_reads_it(files: tuple[str, ...]) -> None:
    compose = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    if not shutil.which(compose[0]) or _status([*compose, "version"]) != 0:
        pytest.skip("docker compose is not installed")
    options = [part for name in files for part in ("-f", str(DEPLOY / name))]
    check = [*compose, *options, "config", "--quiet"]
    assert _status(check, POSTGRES_PASSWORD="p", PREFECT_AUTH="user:p") == 0
    assert _status(check, POSTGRES_PASSWORD="p", PREFECT_AUTH="") != 0


def _status(command: list[str], **variables: str) -> int:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **variables}
    )
    return done.returncode


# ---------------------------------------------------------------- systemd


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_starts_our_programs_with_files_that_have_an_example(name: str) -> None:
    unit = configparser.RawConfigParser(strict=False, comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment]
    unit.read_string(read(f"systemd/{name}"))
    service = unit["Service"]
    program = Path(service["ExecStart"].split()[0])
    assert program.parent == Path("/opt/csr/.venv/bin")
    assert program.name in ("prefect", *PROJECT["scripts"])
    assert service["User"] == "csr"
    for path in re.findall(r"^EnvironmentFile=(/\S+)", read(f"systemd/{name}"), re.MULTILINE):
        assert (DEPLOY / "systemd" / f"{Path(path).name}.example").exists()


def test_stopping_a_worker_stops_its_runs_in_order() -> None:
    text = read("systemd/csr-worker@.service")
    assert "\nKillMode=mixed\n" in text  # else its runs are told at the same time as it is
    assert "\nTimeoutStopSec=120\n" in text


@pytest.mark.parametrize("name", UNITS)
def test_systemd_reads_it(name: str) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(DEPLOY / "systemd" / name)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "is not executable" not in line]
    assert complaints == []  # the programs are installed on the machine that it is for


# ---------------------------------------------------------------- Kubernetes


def template() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read("helm/gpu-job-template.json"))
    return found


def test_the_pod_template_keeps_prefects_rules() -> None:
    """Prefect refuses a template that lacks one of these, at each run and not before."""
    used = placeholders(json.dumps(template()["job_configuration"]))
    assert used == template()["variables"]["properties"].keys()
    manifest = template()["job_configuration"]["job_manifest"]
    assert (manifest["apiVersion"], manifest["kind"]) == ("batch/v1", "Job")
    pod = manifest["spec"]["template"]["spec"]
    assert (pod["parallelism"], pod["completions"], pod["restartPolicy"]) == (1, 1, "Never")
    assert [container["name"] for container in pod["containers"]] == ["prefect-job"]
    assert pod["containers"][0]["args"] == "{{ command }}"
    assert pod["securityContext"]["runAsUser"] == 10001
    assert template()["variables"]["properties"]["pod_watch_timeout_seconds"]["default"] > 600


def test_prefects_kubernetes_worker_takes_the_pod_template() -> None:
    if importlib.util.find_spec("prefect_kubernetes") is None:
        pytest.skip("prefect-kubernetes is not installed")
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    properties = template()["variables"]["properties"]
    values = {name: each.get("default", name) for name, each in properties.items()}
    text = json.dumps(template()["job_configuration"])
    for name, value in values.items():
        text = text.replace(json.dumps("{{ " + name + " }}"), json.dumps(value))
    KubernetesWorkerJobConfiguration.model_validate(json.loads(text))


def test_charts_and_template_name_the_same_things() -> None:
    from flows.deploying import WORK_POOL

    server, worker = document(HELM[0]), document(HELM[1])["worker"]
    assert worker["config"]["workPool"] == WORK_POOL
    secret = worker["selfHostedServerApiConfig"]["basicAuth"]["existingSecret"]
    assert secret == server["server"]["basicAuth"]["existingSecret"]
    assert server["postgresql"]["enabled"] is False
    namespace = template()["variables"]["properties"]["namespace"]["default"]
    assert f".{namespace}.svc." in worker["selfHostedServerApiConfig"]["apiUrl"]
    # Ours is not built from Prefect's image, whose start script the chart would call.
    assert server["server"]["command"] == ["tini", "--"]
