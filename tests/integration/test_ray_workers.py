"""Sampling on a Ray cluster of two nodes, each processes of their own on this machine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.config import load_recipe
from flows.forms import RunRequest
from storage.run_store import RunStore
from storage.tables import content_sha256
from tests.processes import wait_until
from tests.scripted_run import Csr, run_plainly, write_recipe
from tests.tiny_models import make_llava

pytestmark = pytest.mark.slow

REAL: dict[str, Any] = {
    "num_iterations": 1,
    "sampler": {"name": "vllm", "kv_cache_gib": 0.25},
    "similarity": None,
    "reward": {"image_weight": 0.0},
    "evaluation": [],
}
"""Sampled by vLLM; the trainer is scripted."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a cluster's head, whose two nodes have room for one worker each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    # Ray puts sockets below it, whose paths must be short.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()


def digests(home: Path, run_id: str) -> dict[str, str]:
    attempt = RunStore(home).attempt(run_id, 1)
    return {
        name: content_sha256(getattr(attempt, name), name)
        for name in ("nodes", "responses", "pairs")
    }


def on_ray(address: str, num_workers: int) -> str:
    return "ray=" + json.dumps(
        {"num_workers": num_workers, "gpus_per_worker": 0, "address": address}
    )


def test_a_worker_that_is_killed_changes_nothing_and_neither_does_their_number(
    address: str, tmp_path: Path
) -> None:
    make_llava(tmp_path / "llava")
    recipe = write_recipe(tmp_path / "data", **REAL, policy={"model": str(tmp_path / "llava")})
    home = tmp_path / "home"
    run_plainly(RunRequest(home=str(home), recipe=str(recipe), run_id="here"))
    command = [Path(sys.executable).with_name("csr"), "run", recipe, "--home", home]
    process = subprocess.Popen(
        [*map(str, command), "--run-id", "there", "--set", on_ray(address, 2)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: len(busy_workers()) == 2)
        busy_workers()[0].kill()
        told = process.communicate(timeout=600)[1]
    finally:
        process.kill()
    assert process.returncode == 0, told
    assert "A Ray worker is replaced." in told
    assert digests(home, "there") == digests(home, "here")
    stages = RunStore(home).attempt("there", 1).manifest.read().stages
    assert {stage.status for stage in stages} == {"done"}
    wait_until(lambda: not busy_workers())


def busy_workers() -> list[psutil.Process]:
    """Processes of workers at work, as Ray titles them."""
    found = psutil.process_iter()
    return [each for each in found if _title(each).startswith("ray::StageActor.do")]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_cluster_that_is_not_there_is_told(csr: Csr, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data", num_iterations=1)
    answer = csr(
        "run", recipe, "--home", tmp_path / "home", "--run-id", "r",
        "--set", on_ray("127.0.0.1:1", 2),
    )  # fmt: skip
    assert answer.status == 1
    assert "No Ray cluster answers at '127.0.0.1:1'" in answer.err


def test_settings_of_workers_are_checked(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "data")
    loaded = load_recipe(recipe, ("ray={num_workers: 3}", "stage_timeout_seconds=60"))
    assert loaded.ray is not None
    assert loaded.ray.gpus_per_worker == 1.0
