"""Stages on a Ray cluster: one named actor a worker, asked by threads of this process.

An actor's process keeps its engines warm from shard to shard, and ends before training, which wants
the GPUs. A worker that dies takes its shard with it: another is started in its place, and the shard
is done once more, as after any lost engine. Ray carries names and small numbers alone; tables and
weights are in the store, so every machine sees the same paths.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
from typing import TYPE_CHECKING, Any

from csr.errors import EngineLost, EnvironmentFault, RunFailed
from flows import environment
from flows.ray_settings import Config
from flows.stage_wire import revive_error

if TYPE_CHECKING:
    from storage.attempt import AttemptDir

logger = logging.getLogger("csr")

NAMESPACE = "csr"
_KNOCK_SECONDS = 10.0


class RayWorkers:
    """The workers of one process's runs. Threads may share it: each gets a worker of its own."""

    def __init__(self, config: Config, home: str) -> None:
        """EnvironmentFault where Ray is not installed or no cluster answers."""
        self._ray = _connected(config)
        self._config, self._home = config, home
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._actors: list[Any] = []
        self._num_started = 0
        self._closed = False
        for _ in range(config.num_workers):
            self._idle.put(self._started())

    def do(
        self,
        attempt: AttemptDir,
        stage: str,
        shard: int | None,
        *,
        num_waves: int,
        timeout_seconds: float | None,
    ) -> None:
        """Run one stage on a worker that is free; waits for one.

        EngineLost where the worker dies or takes longer than `timeout_seconds`. A CSRError of the
        worker is raised here, any other error as RunFailed.
        """
        actor = self._idle.get()
        try:
            self._check_open()
            asked = actor.do.remote(str(attempt.id), stage, shard, num_waves)
            error = self._ray.get(asked, timeout=timeout_seconds)
        except self._ray.exceptions.GetTimeoutError:
            actor = self._replaced(actor)
            raise EngineLost(f"{attempt.id} {stage} took too long and was ended.") from None
        except self._ray.exceptions.RayActorError as died:
            self._check_open()
            actor = self._replaced(actor)
            raise EngineLost(
                f"{attempt.id} {stage}: its worker died. {_first_line(died)}"
            ) from None
        finally:
            self._idle.put(actor)
        if error is not None:
            raise revive_error(error, "Ray's log of the worker")

    def close(self) -> None:
        """End all workers, whatever they do; their threads end with RunFailed."""
        self._closed = True
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors.clear()

    def process_ids(self) -> list[int]:
        """Of the workers."""
        found: list[int] = self._ray.get([each.process_id.remote() for each in self._actors])
        return found

    def _started(self) -> Any:
        from flows.ray_actor import StageActor

        made = self._ray.remote(StageActor).options(
            name=f"csr-{socket.gethostname()}-{os.getpid()}-{self._num_started}",
            namespace=NAMESPACE,
            num_gpus=self._config.gpus_per_worker,
            num_cpus=self._config.cpus_per_worker,
            runtime_env={"env_vars": environment.of_workers()},
        )
        self._num_started += 1
        actor = made.remote(self._home)
        self._actors.append(actor)
        return actor

    def _replaced(self, actor: Any) -> Any:
        self._actors.remove(actor)
        self._ray.kill(actor)
        logger.warning("A Ray worker is replaced.")
        return self._started()

    def _check_open(self) -> None:
        if self._closed:
            raise RunFailed("The run was stopped. The same command resumes it.")


_workers: dict[tuple[str, str], RayWorkers] = {}


def ray_workers(config: Config, home: str) -> RayWorkers:
    """This process's workers, started where there are none."""
    key = (home, config.model_dump_json())
    if key not in _workers:
        close_ray_workers()
        _workers[key] = RayWorkers(config, home)
    return _workers[key]


def close_ray_workers() -> None:
    """End all workers of this process; the cluster stays."""
    while _workers:
        _workers.popitem()[1].close()


def _connected(config: Config) -> Any:
    """The module `ray`, connected."""
    # Read when Ray is imported: it reports to its makers otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise EnvironmentFault(
            "The recipe samples on Ray, which is not installed here. Install the extra: pip "
            'install "csr[ray]", on every machine of the cluster.'
        ) from None
    if ray.is_initialized():
        return ray
    options: dict[str, Any] = {"address": config.address}
    if config.address == "local":
        options |= {"include_dashboard": False}
    try:
        _knock(config.address)
        ray.init(namespace=NAMESPACE, log_to_driver=False, configure_logging=False, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise EnvironmentFault(
            f"No Ray cluster answers at {config.address!r} ({_first_line(error)}). Start one with "
            "`ray start --head`, or set ray.address to local."
        ) from None
    return ray


def _knock(address: str) -> None:
    """OSError where nobody listens there; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
