"""Trains and is killed by SIGKILL, in a child process for each place.

    python -m tests.killed_training CHECKPOINT PAIRS ROOT PLACE...

The packages are imported once; a child is forked before any of them computes. A place is a
number of pairs as progress counts them, `saving` (in the middle of the fourth checkpoint), or
`merging` (all steps are done, the result is not). Leaves ROOT/PLACE/out and ROOT/PLACE/kept.
"""

import os
import signal
import sys
from pathlib import Path

from csr.trainers import _adapter_trainer, _checkpoints
from tests.dpo_runs import RESUMABLE, train


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def train_until(place, checkpoint, pairs_path, folder):
    digest = _checkpoints.file_sha256
    if place == "saving":
        _checkpoints.file_sha256 = lambda f: die() if "step-00000004" in str(f) else digest(f)
    if place == "merging":
        _adapter_trainer.save_merged = die
    train(
        checkpoint,
        pairs_path,
        folder / "out",
        config=RESUMABLE,
        progress=lambda done, total: die() if str(done) == place else None,
        keep_in=folder / "kept",
    )


def main(checkpoint, pairs_path, root, *places):
    for place in places:
        child = os.fork()
        if child == 0:
            train_until(place, checkpoint, Path(pairs_path), Path(root) / place)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"{place}: status {status}, and not killed"
        assert os.WTERMSIG(status) == signal.SIGKILL, place


if __name__ == "__main__":
    main(*sys.argv[1:])
