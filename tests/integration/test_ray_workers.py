"""Sampling on a Ray cluster of two nodes, each processes of their own on this machine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from flows.config import load_recipe
from storage.run_store import RunStore
from storage.tables import content_sha256
from tests.processes import wait_until
from tests.scripted_run import Csr, write_recipe
from tests.tiny_models import make_llava

pytestmark = pytest.mark.slow

REAL: dict[str, Any] = {
    "num_iterations": 1,
    "sampler": {"name": "vllm", "kv_cache_gib": 0.25},
    "similarity": None,
    "reward": {"image_weight": 0.0},
    "trainer": {"name": "dpo", "lora_rank": 4, "lora_alpha": 8, "batch_size": 2, "num_steps": 2},
    "evaluation": [],
}
NUM_SHARDS = 3


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


def nodes(home: Path, run_id: str) -> list[Path]:
    """The tables of the shards."""
    return sorted(RunStore(home).attempt(run_id, 1).nodes.iterdir())


def sampled(shard: Path) -> list[tuple[Any, ...]]:
    names = ("prompt_id", "node_id", "kept", "token_ids")
    return list(zip(*(pq.read_table(shard)[name].to_pylist() for name in names), strict=True))


def logprobs(shard: Path) -> list[float]:
    column = pq.read_table(shard)["token_logprobs"].to_pylist()
    return [value for row in column for value in row]


def on_ray(address: str, num_workers: int) -> str:
    return "ray=" + json.dumps(
        {"num_workers": num_workers, "gpus_per_worker": 0, "address": address}
    )


def started(recipe: Path, home: Path, run_id: str, *options: str) -> subprocess.Popen[str]:
    """`csr run` in a process that computes on one thread, as Ray's workers do."""
    csr = Path(sys.executable).with_name("csr")
    return subprocess.Popen(
        [csr, "run", recipe, "--home", home, "--run-id", run_id, *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
    )


@pytest.mark.skipif(
    os.environ.get("HYPOTHESIS_PROFILE") != "soak",
    reason="`make soak` runs it: its start has hung now and then, for a cause not found yet",
)
def test_a_worker_that_is_killed_changes_nothing_and_neither_does_their_number(
    address: str, tmp_path: Path
) -> None:
    make_llava(tmp_path / "llava")
    recipe = write_recipe(tmp_path / "data", **REAL, policy={"model": str(tmp_path / "llava")})
    home = tmp_path / "home"
    alone = started(recipe, home, "here")
    told = alone.communicate(timeout=300)[1]
    assert alone.returncode == 0, told
    process = started(recipe, home, "there", "--set", on_ray(address, 2))
    try:
        wait_until(lambda: len(busy_workers()) == 2, seconds=200)
        busy_workers()[0].kill()
        told = process.communicate(timeout=600)[1]
    except AssertionError:
        process.send_signal(signal.SIGABRT)  # it tells where its threads are
        pytest.fail(f"never two workers at work:\n{process.communicate()[1]}")
    finally:
        process.kill()
    assert process.returncode == 0, told
    assert "A Ray worker is replaced." in told
    here, there = nodes(home, "here"), nodes(home, "there")
    digests = [[content_sha256(shard, "nodes") for shard in shards] for shards in (here, there)]
    assert sum(one == other for one, other in zip(*digests, strict=True)) >= NUM_SHARDS - 1
    # The one that was lost was done once more in two halves, which rounds otherwise.
    assert [sampled(shard) for shard in there] == [sampled(shard) for shard in here]
    for one, other in zip(there, here, strict=True):
        assert logprobs(one) == pytest.approx(logprobs(other), abs=1e-4)
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
