"""Runs whose process is gone, told so to Prefect.

A worker that is stopped or killed takes its flow runs with it, and Prefect goes on showing them
as running. Each flow notes its machine and process as labels of its run; whoever looks on that
machine can tell the dead from the living.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run
from prefect.states import Crashed

HOST_LABEL, PID_LABEL, STARTED_LABEL = "csr.host", "csr.pid", "csr.process_started"

_GONE = "The process that ran it is gone. A retry goes on where it stopped."


def label_this_run() -> None:
    """Note which process runs the current flow run."""
    labels: dict[str, bool | int | float | str] = {
        HOST_LABEL: platform.node(),
        PID_LABEL: os.getpid(),
        STARTED_LABEL: psutil.Process().create_time(),
    }
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(UUID(flow_run.id), labels)


def settle_dead_runs() -> list[str]:
    """Mark this machine's runs without a process as crashed; their names."""
    unfinished = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.CANCELLING])
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=unfinished))
        )
        dead = [run for run in found if is_dead(run.labels)]
        for run in dead:
            client.set_flow_run_state(run.id, Crashed(message=_GONE), force=True)
    return [run.name for run in dead]


def is_dead(labels: Mapping[str, Any]) -> bool:
    """Whether the process that these labels of a flow run name is gone; False of other machines.

    Process numbers are used again, so the process's start must be the same as well. In a container
    whose first process collects nobody, the dead stay in the table as zombies.
    """
    if labels.get(HOST_LABEL) != platform.node():
        return False
    try:
        process = psutil.Process(int(labels[PID_LABEL]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        started = process.create_time()
    except psutil.NoSuchProcess:
        return True
    return bool(abs(started - float(labels[STARTED_LABEL])) > 1.0)
