"""Runs whose process is gone, told so to Prefect.

A worker that is stopped or killed takes its flow runs with it, and Prefect goes on showing them
as running. A run that ends of itself while Prefect is about to cancel it stays "cancelling": the
server refuses every other end, and nobody is left to report that one. Each flow notes its machine
and process as labels of its run; whoever looks on that machine can tell the dead from the living.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.runtime import flow_run
from prefect.states import Cancelled, Crashed

HOST_LABEL, PID_LABEL, STARTED_LABEL = "csr.host", "csr.pid", "csr.process_started"

_GONE = "The process that ran it is gone. A retry goes on where it stopped."
_ENDED_FIRST = "It ended before it could be stopped. What it finished is kept."
_ENDS: dict[StateType, Callable[[], State]] = {
    StateType.RUNNING: lambda: Crashed(message=_GONE),
    StateType.CANCELLING: lambda: Cancelled(message=_ENDED_FIRST),
}
"""State of a run without a process -> the state it gets."""


def label_this_run() -> None:
    """Note which process runs the current flow run."""
    labels: dict[str, bool | int | float | str] = {
        HOST_LABEL: platform.node(),
        PID_LABEL: os.getpid(),
        STARTED_LABEL: psutil.Process().create_time(),
    }
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(UUID(flow_run.id), labels)


def settle_dead_runs(min_seconds: float = 0.0) -> list[str]:
    """Mark this machine's runs without a process as crashed, or as cancelled; their names.

    Runs that have been in their state for less than `min_seconds` are left alone: a retry is
    running a moment before it has noted its new process.
    """
    unfinished = FlowRunFilterStateType(any_=list(_ENDS))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=unfinished))
        )
        dead = [run for run in found if is_dead(run.labels)]
        # Asked again: a process that has ended since the first look has reported its own end.
        return [run.name for run in dead if _settle(client, run.id, min_seconds)]


def _settle(client: SyncPrefectClient, flow_run_id: UUID, min_seconds: float) -> bool:
    """Report the end of a run whose process is gone; False where the run has done it itself."""
    state = client.read_flow_run(flow_run_id).state
    if state is None or state.type not in _ENDS:
        return False
    if (datetime.now(UTC) - state.timestamp).total_seconds() < min_seconds:
        return False
    client.set_flow_run_state(flow_run_id, _ENDS[state.type](), force=True)
    return True


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
