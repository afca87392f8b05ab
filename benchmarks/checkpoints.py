"""What a checkpoint inside training costs, in time and on disk.

    OMP_NUM_THREADS=1 python benchmarks/checkpoints.py ATTEMPT [--rounds 3]

Repeats the training of an attempt (`runs/<run>/iterations/01/attempts/1`) in turns without
checkpoints and with one after every step, one batch a step. Only the share of a step means
anything, and it falls as the model grows: a step's work grows with all weights, a checkpoint
with the adapter's alone.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

from csr.trainers import dpo
from csr.types import PolicyRef
from flows import environment
from storage.attempt import AttemptDir, IterationId


def main() -> None:
    """Print the median seconds of a step with and without, and the size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attempt", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    environment.apply(Path("runs"), offline=True)
    attempt = AttemptDir(IterationId("measured", 1, 1), options.attempt)
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for _, every in itertools.product(range(options.rounds), seconds):
        with tempfile.TemporaryDirectory(dir=options.attempt) as folder:
            seconds[every] += _step_seconds(attempt, every, Path(folder))
            newest = max((Path(folder) / "checkpoints").glob("step-*"), default=None)
            if newest:
                sizes = {file.name: file.stat().st_size for file in sorted(newest.iterdir())}
    without, with_one = (statistics.median(values) for values in seconds.values())
    print(f"{len(seconds[0])} steps of each; median of a step: {without:.4f} s")
    print(f"a checkpoint: {with_one - without:.4f} s, {(with_one - without) / without:.1%} of it")
    print(f"{sum(sizes.values()) / 2**20:.2f} MiB: {sizes}")


def _step_seconds(attempt: AttemptDir, every: int, folder: Path) -> list[float]:
    """Seconds between one batch's loss and the next one's, for all steps."""
    manifest = attempt.manifest.read()
    settings = {key: value for key, value in manifest.config["trainer"].items() if key != "name"}
    assert settings["gradient_accumulation_steps"] == 1, "a step is more than a batch"
    config = dpo.Config(**settings | {"checkpoint_every_num_steps": every})
    assert manifest.policy_in is not None
    times: list[float] = []
    dpo.build(config).train(
        policy=PolicyRef(**manifest.policy_in),
        data_path=attempt.pairs,
        output_dir=folder / "out",
        seed=manifest.seed,
        progress=lambda done, total: times.append(time.monotonic()),
        checkpoint_dir=folder / "checkpoints",
    )
    # The reference takes as many batches as an epoch does.
    begun = times[len(times) // (1 + config.num_epochs) :]
    return [later - earlier for earlier, later in itertools.pairwise(begun)]


if __name__ == "__main__":
    main()
