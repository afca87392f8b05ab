"""No test asks the network: the packages read these variables when they are imported."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from flows.environment import OFFLINE, TELEMETRY

if TYPE_CHECKING:
    from tests.scripted_run import Csr

for setting in (*OFFLINE, *TELEMETRY):
    os.environ.setdefault(setting.name, setting.value)

# Several test processes at once, and what they start: more threads than cores wait for each other
# by spinning, and all takes twice the time. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A script's background job, and all it starts, ignore Ctrl-C; tests that send it need it heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def csr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Csr:
    """The `csr` command in this process, without Prefect."""
    from tests.scripted_run import Csr  # its packages read the variables set above

    return Csr(monkeypatch, capsys)
