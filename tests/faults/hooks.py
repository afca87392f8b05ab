"""What a test changes in the process of a run before it starts: `before` of `command.run`."""

import random
import time
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

PAUSE_SECONDS = 0.02


def allow_any_disk() -> None:
    """A run that starts on a disk which is too small for it."""
    import flows.checks

    flows.checks.SMALLEST_FREE_BYTES = 0


def wait_in_training(here: Path, go: Path) -> None:
    """Make the file `here` when training starts, and go on when there is a file `go`."""
    from csr.trainers.scripted import ScriptedTrainer

    train = ScriptedTrainer.train

    def waiting(self: Any, **arguments: Any) -> Any:
        here.touch()
        wait_for(go)
        return train(self, **arguments)

    ScriptedTrainer.train = waiting  # type: ignore[method-assign]


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(PAUSE_SECONDS)


def jumping_clock(seed: int, start_days: int) -> None:
    """A wall clock that is `start_days` off and jumps by up to ten days, either way, each time."""
    import storage.manifest

    rng = random.Random(seed)

    def off() -> timedelta:
        return timedelta(days=start_days + rng.uniform(-10, 10))

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.fromtimestamp(real(), tz or UTC) + off()

    real = time.time
    time.time = lambda: real() + off().total_seconds()
    storage.manifest.datetime = Jumping  # type: ignore[misc]
