"""Runs short pieces of Python in processes of their own and reports how they ended."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from flows import environment

TIMEOUT_SECONDS = 180.0
"""Importing vLLM takes 11 s on an idle machine, several times that on a loaded one."""


@dataclass(frozen=True, slots=True)
class Probe:
    """How one piece of Python ended."""

    ok: bool
    last_line: str
    """Of its standard output when ok, else the line of its error that says what happened."""


def run_probes(
    commands: Mapping[str, str], timeout_seconds: float = TIMEOUT_SECONDS
) -> dict[str, Probe]:
    """Run every command (`python -c`), as many at once as there are cores; keys stay in order."""
    with tempfile.TemporaryDirectory() as home:  # importing Prefect writes under its home
        variables = {**environment.settings(Path(home), offline=True), **os.environ}
        variables["PREFECT_HOME"] = home
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            results = pool.map(
                lambda command: _run(command, variables, timeout_seconds), commands.values()
            )
            return dict(zip(commands, results, strict=True))


def _run(command: str, variables: Mapping[str, str], timeout_seconds: float) -> Probe:
    try:
        child = subprocess.run(
            [sys.executable, "-c", command],
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            env=dict(variables),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probe(ok=False, last_line=f"no end after {timeout_seconds:.0f} s")
    output = child.stdout if child.returncode == 0 else child.stderr
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if child.returncode < 0:
        last = f"killed by signal {-child.returncode} {last}".strip()
    return Probe(ok=child.returncode == 0, last_line=last)
