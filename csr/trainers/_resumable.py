"""Lets transformers' Trainer save and resume as it does, but by our files and not by pickles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from csr.trainers._training_state import (
    load_adapter,
    load_optimizer,
    read_state,
    rng_state,
    save_training,
    set_rng_state,
)

if TYPE_CHECKING:
    from csr.trainers._checkpoints import Checkpoints
    from csr.trainers._watch import TrainingWatch


class Resumable:
    """Goes before Trainer among a class's bases and replaces its hooks for checkpoints.

    Trainer decides when one is due and, going on from one, which epochs, steps and batches
    are left.
    """

    watch: TrainingWatch
    checkpoints: Checkpoints | None
    precompute_ref_logps: bool
    args: Any
    data_collator: Any
    lr_scheduler: Any
    model: Any
    optimizer: Any
    state: Any

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        from accelerate.utils import gather_object

        rng_states = gather_object([rng_state()])
        if self.args.should_save:  # in one of the processes
            assert self.checkpoints is not None
            self.checkpoints.publish(
                self.state.global_step, lambda folder: save_training(self, rng_states, folder)
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        state = read_state(folder)
        load_adapter(self.model, folder)
        self.watch.restore(state["watch"])
        if state["reference_logprobs"] is not None:
            self.data_collator.reference_logprobs = state["reference_logprobs"]
            self.precompute_ref_logps = True

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_optimizer(self.optimizer, self.lr_scheduler, Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            set_rng_state(read_state(Path(checkpoint))["rng"][self.args.process_index])
