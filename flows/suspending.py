"""A flow run that waits for people gives back its process, and is woken when they have spoken.

Prefect suspends only runs of a deployment that no other flow run has started: others end, and the
same command or form goes on.
"""

from __future__ import annotations

from uuid import UUID, uuid4

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.flow_runs import suspend_flow_run
from prefect.runtime import deployment, flow_run, task_run

from csr.errors import VerdictsWanted

WAITS_LABEL = "csr.waits_for"
"""The attempt whose responses must be judged."""
MAX_WAIT_SECONDS = 30 * 24 * 3600
"""Then Prefect lets the flow run fail; a new one goes on with what there is."""


def can_suspend() -> bool:
    """Whether the code that runs now may give back the process of its flow run."""
    is_task = task_run.id is not None
    return not is_task and bool(deployment.id) and flow_run.parent_flow_run_id is None


def suspend_for(wanted: VerdictsWanted) -> None:
    """End this process's work on the current flow run until `wake` is called. Does not return."""
    labels: dict[str, bool | int | float | str] = {WAITS_LABEL: wanted.attempt_id}
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(UUID(flow_run.id), labels)
    # With the key of an earlier suspension, as its own choice may be, Prefect goes straight on.
    suspend_flow_run(timeout=MAX_WAIT_SECONDS, key=uuid4().hex)


def wake(attempt_id: str) -> list[str]:
    """Have the flow runs go on that wait for verdicts on this attempt; their names."""
    paused = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=paused))
        waiting = [run for run in found if _waits_for(run, attempt_id)]
        for run in waiting:
            client.resume_flow_run(run.id)
    return [run.name for run in waiting]


def _waits_for(run: FlowRun, attempt_id: str) -> bool:
    return run.labels.get(WAITS_LABEL) == attempt_id
