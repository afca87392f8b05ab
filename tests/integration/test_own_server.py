"""The Prefect server that a process starts for its runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.prefect_service import ROOT

pytestmark = pytest.mark.slow

TWO_RUNS = """
import json, os
from pathlib import Path
from flows import environment
home = Path("home").absolute()
home.mkdir()
environment.apply(home, offline=True)
from flows.server import _servers, is_own_server, prefect_server
from prefect.settings import PREFECT_API_URL
seen = []
for _ in range(2):
    with prefect_server():
        assert is_own_server()
        seen.append(PREFECT_API_URL.value())
assert not is_own_server()
((process, _),) = _servers.values()
print(json.dumps({"urls": seen, "pid": process.pid}))
"""


def test_runs_of_one_process_share_a_server_that_ends_with_it(tmp_path: Path) -> None:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CSR_"))}
    done = subprocess.run(
        [sys.executable, "-c", TWO_RUNS],
        env=plain | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    first, second = told["urls"]
    assert first == second
    assert first.startswith("http://127.0.0.1:")
    assert not psutil.pid_exists(told["pid"])  # its parent has waited for it
