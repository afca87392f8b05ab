"""Which flow runs have lost their process, and what Prefect is told of them."""

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psutil
import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType

from flows import settling
from flows.settling import HOST_LABEL, PID_LABEL, STARTED_LABEL, is_dead
from tests.processes import wait_until


@pytest.fixture
def process() -> Iterator[psutil.Popen]:
    started = psutil.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield started
    with contextlib.suppress(psutil.NoSuchProcess):
        started.kill()
    started.wait()


def labels(process: psutil.Popen) -> dict[str, Any]:
    return {
        HOST_LABEL: platform.node(),
        PID_LABEL: process.pid,
        STARTED_LABEL: process.create_time(),
    }


def test_a_process_that_runs_is_alive(process: psutil.Popen) -> None:
    assert not is_dead(labels(process))


def test_a_zombie_that_nobody_collects_is_dead(process: psutil.Popen) -> None:
    noted = labels(process)
    os.kill(process.pid, 9)
    wait_until(lambda: process.status() == psutil.STATUS_ZOMBIE)
    assert is_dead(noted)


def test_what_was_collected_is_dead(process: psutil.Popen) -> None:
    noted = labels(process)
    process.kill()
    process.wait()
    assert is_dead(noted)


def test_another_process_with_that_number_is_not_it(process: psutil.Popen) -> None:
    assert is_dead(labels(process) | {STARTED_LABEL: process.create_time() - 60})


@pytest.mark.parametrize("labels_", [{}, {HOST_LABEL: "elsewhere", PID_LABEL: 1}])
def test_other_machines_runs_are_left_to_them(labels_: dict[str, Any]) -> None:
    assert not is_dead(labels_)


class Server:
    """What the client sees of one flow run: on each look, its next state."""

    def __init__(self, labels_: dict[str, Any], *states: StateType) -> None:
        self.told: list[State] = []
        self._labels = labels_
        self._states = list(states)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *exc: object) -> None:
        return

    def read_flow_runs(self, **_: object) -> list[FlowRun]:
        return [self.read_flow_run(uuid4())]

    def read_flow_run(self, flow_run_id: object) -> FlowRun:
        state = State(type=self._states.pop(0), timestamp=datetime.now(UTC) - timedelta(seconds=90))
        return FlowRun(flow_id=uuid4(), name="mine", labels=self._labels, state=state)

    def set_flow_run_state(self, flow_run_id: object, state: State, force: bool) -> None:
        assert force
        self.told.append(state)


GONE = {HOST_LABEL: platform.node(), PID_LABEL: 2**22 + 1, STARTED_LABEL: 0.0}


def settle(
    monkeypatch: pytest.MonkeyPatch, *states: StateType, min_seconds: float = 0.0
) -> tuple[list[str], list[StateType]]:
    """The names told, and the states set, where two looks at the run see these states."""
    server = Server(GONE, *states)
    monkeypatch.setattr(settling, "get_client", lambda sync_client: server)
    return settling.settle_dead_runs(min_seconds), [state.type for state in server.told]


def test_a_run_that_died_is_crashed(monkeypatch: pytest.MonkeyPatch) -> None:
    states = StateType.RUNNING, StateType.RUNNING
    assert settle(monkeypatch, *states) == (["mine"], [StateType.CRASHED])


def test_a_run_that_ended_while_it_was_being_cancelled_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states = StateType.CANCELLING, StateType.CANCELLING
    assert settle(monkeypatch, *states) == (["mine"], [StateType.CANCELLED])


def test_a_run_that_has_just_reported_its_end_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settle(monkeypatch, StateType.RUNNING, StateType.COMPLETED) == ([], [])


def test_a_retry_that_has_not_noted_its_process_yet_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states = StateType.RUNNING, StateType.RUNNING
    assert settle(monkeypatch, *states, min_seconds=120) == ([], [])
    assert settle(monkeypatch, *states, min_seconds=60) == (["mine"], [StateType.CRASHED])
