"""`csr deploy`: tells a Prefect server about work pool, limit, deployments and automations.

Safe to repeat: names are identities, and what is there is brought up to date.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import SecretStr

from csr.errors import EnvironmentFault
from flows.checkout import CHECKOUT
from flows.schedules import cron_schedule
from flows.server import require_server
from flows.shipped import DEPLOY_FILES

if TYPE_CHECKING:
    from prefect.client.schemas.schedules import CronSchedule

WORK_POOL = "csr"
NOTIFY_URL = "CSR_NOTIFY_URL"
QUEUES = {"rerun": 1, "default": 2}
"""Name -> priority, 1 first: what a person asks for goes before what is scheduled."""


def deploy(cron: str | None = None) -> list[str]:
    """What was made or brought up to date, one line each. `cron` gives csr-run a schedule, UTC.

    EnvironmentFault without a server, or where Prefect refuses a file. ConfigError for no cron.
    """
    schedule = None if cron is None else cron_schedule(cron)
    require_server()
    from flows.slots import ENGINE_LIMIT, ensure_engine_limit

    _ensure_work_pool()
    ensure_engine_limit()
    _deploy_flows()
    automations = _apply_automations(
        yaml.safe_load((DEPLOY_FILES / "automations.yaml").read_text())
    )
    return [
        f"work pool {WORK_POOL} with the queues {', '.join(QUEUES)}",
        f"concurrency limit {ENGINE_LIMIT}",
        "deployments csr-run, csr-iteration, csr-evaluate",
        *([_ensure_schedule(schedule)] if schedule else []),
        *automations,
    ]


def _ensure_schedule(schedule: CronSchedule) -> str:
    """One schedule of that time, however often it is asked for; others stay as they are."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    wanted = DeploymentScheduleCreate(schedule=schedule, active=True)
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("csr-run/csr-run")
        known = [getattr(each.schedule, "cron", None) for each in deployment.schedules]
        if schedule.cron not in known:
            client.create_deployment_schedules(deployment.id, [wanted])
    return f"schedule {schedule.cron} of csr-run, UTC"


def _ensure_work_pool() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client, contextlib.suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process"))
    for name, priority in QUEUES.items():
        _prefect("work-queue", "create", name, "--pool", WORK_POOL, "--priority", str(priority))


def _deploy_flows() -> None:
    _prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(DEPLOY_FILES / "prefect.yaml"))


def _prefect(*arguments: str) -> None:
    """Prefect's own command, in the folder that holds the packages."""
    command = [sys.executable, "-m", "prefect", *arguments]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    said = f"{done.stdout}{done.stderr}"
    if done.returncode != 0 and "already exists" not in said:
        raise EnvironmentFault(f"`prefect {' '.join(arguments)}` failed:\n{said.strip()[-2000:]}")


def _apply_automations(document: dict[str, Any]) -> list[str]:
    """Create each automation, or update the one of its name; Prefect's own command doubles it.

    Those that notify need somebody to notify: without a URL they are left out, and told so.
    """
    from prefect.client.orchestration import get_client
    from prefect.events.schemas.automations import AutomationCore

    block_id = _notify_block()
    told = []
    with get_client(sync_client=True) as client:
        for wanted in document["automations"]:
            actions = [_with_block(action, block_id) for action in wanted["actions"]]
            if None in actions:
                told.append(f"automation {wanted['name']} left out: {NOTIFY_URL} is not set")
                continue
            automation = AutomationCore.model_validate({**wanted, "actions": actions})
            known = client.read_automations_by_name(automation.name)
            if known:
                client.update_automation(known[0].id, automation)
            else:
                client.create_automation(automation)
            told.append(f"automation {automation.name}")
    return told


def _notify_block() -> str | None:
    """The ID of the webhook block; None without a URL. The URL may hold a secret, and does not
    stand in any file.
    """
    from prefect.blocks.webhook import Webhook
    from prefect.types import SecretDict

    url = os.environ.get(NOTIFY_URL)
    if not url:
        return None
    headers = SecretDict({"Content-Type": "application/json"})
    webhook = Webhook(method="POST", url=SecretStr(url), headers=headers)
    return str(webhook.save("csr-notify", overwrite=True))


def _with_block(action: dict[str, Any], block_id: str | None) -> dict[str, Any] | None:
    if "block" not in action:
        return action
    rest = {name: value for name, value in action.items() if name != "block"}
    return None if block_id is None else {**rest, "block_document_id": block_id}
