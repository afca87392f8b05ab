"""`csr run` as a process of its own, with its stages in child processes that have a fault."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

RUN = "mine"
IN_SHARD_1 = "2"
"""A prompt of the second of the scripted recipe's three shards."""
SCRIPT = """
import os, sys
from tests import faulty_worker
from tests.scripted_run import without_prefect
from flows import stage_process
stage_process.WORKER = faulty_worker.WORKER
if os.environ.get("PLAIN"):
    sys.modules.update(without_prefect())
from flows.cli import main
main()
"""


def fault_settings(act: str, times: int, journal: Path) -> str:
    settings = {"act": act, "times": times, "prompt_id": IN_SHARD_1, "journal": str(journal)}
    return json.dumps(settings)


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[2]), **variables}


def command(recipe: Path, home: Path, *more: str) -> tuple[object, ...]:
    return ("run", recipe, "--home", home, "--run-id", RUN, "--set", "isolation=process", *more)


def start(recipe: Path, home: Path, journal: Path, act: str, times: int, **variables: str) -> Any:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, command(recipe, home))],
        env=environment(CSR_FAULT=fault_settings(act, times, journal), **variables),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
