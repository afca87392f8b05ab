"""What runs inside a Ray worker: stages, one after another, with engines kept warm."""

from __future__ import annotations

import logging
import os

from flows.engines import close_engines
from flows.stage_jobs import done_job


class StageActor:
    """Made a Ray actor by `flows.ray_workers`. Its output is in Ray's logs of the worker."""

    def __init__(self, home: str) -> None:
        self._home = home
        logging.basicConfig(level=logging.WARNING)
        logging.captureWarnings(True)
        logging.getLogger("csr").setLevel(logging.INFO)

    def process_id(self) -> int:
        """Of this worker."""
        return os.getpid()

    def do(
        self, attempt_id: str, stage: str, shard: int | None, num_waves: int
    ) -> dict[str, str] | None:
        """See `flows.stage_jobs.done_job`."""
        return done_job(self._home, attempt_id, stage, shard, num_waves)

    def close(self) -> None:
        """Free the engines."""
        close_engines()
