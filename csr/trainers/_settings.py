"""Settings that every way of training an adapter has."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from csr.config import ComponentConfig
from csr.planning import PlannedTraining
from csr.trainers._policy_files import DeviceName, DtypeName


class TrainingSettings(ComponentConfig):
    """How one iteration trains. Defaults suit a 7B model on one 80 GB GPU."""

    learning_rate: float = Field(default=3e-6, gt=0)
    """Peak rate for AdamW. CSR's code: 1e-7 at batch 1, scaled linearly to 32 pairs a step."""
    lr_scheduler: Literal["linear", "cosine", "constant"] = "cosine"
    """Decay after the warm-up (CSR's code: cosine)."""
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    """Share of all steps over which the rate rises from 0, rounded down to whole steps (CSR's
    code: 0.03). So below 34 steps there is no warm-up."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decay (CSR's code: 0)."""
    num_epochs: int = Field(default=1, ge=1)
    """Passes over the data (CSR's code: 1)."""
    num_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps in all, whatever the data's size: passes are repeated, or the last is cut.
    None makes `num_epochs` passes. For comparisons, which must not confuse a method with its
    share of training."""
    batch_size: int = Field(default=4, ge=1)
    """Pairs (each is two sequences) or demonstrations in one forward pass."""
    gradient_accumulation_steps: int = Field(default=8, ge=1)
    """Forward passes in one optimiser step."""
    lora_rank: int = Field(default=128, ge=1)
    """Rank of the adapter on each linear layer of the language model (CSR's code: 128)."""
    lora_alpha: int = Field(default=256, ge=1)
    """The adapter's output is scaled by lora_alpha / lora_rank (CSR's code: 256)."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapter. CSR's script says 0.05, but TRL 0.8 switched dropout off."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm over all adapter weights."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    dtype: DtypeName = "auto"
    """Type of the frozen weights in training; auto: as stored, float16 widened to float32.
    The trained policy is always stored in the type of the one before."""
    device: DeviceName = "auto"
    """Where to train; auto takes the first CUDA device where there is one."""
    num_processes: int = Field(default=1, ge=1)
    """Data-parallel processes on this machine, one GPU each. A step then takes batch_size x
    gradient_accumulation_steps x num_processes of them; a last, smaller round repeats a few."""
    accelerate_config: Path | None = None
    """A file that `accelerate config` writes, for a model that no single GPU holds: FSDP or
    DeepSpeed. `num_processes` above decides over the file's own, and weights stay as precise as
    `dtype` says. None: plain data parallelism, a whole copy of the model on each GPU."""
    dataloader_workers: int = Field(default=0, ge=0)
    """Processes that decode images ahead of the model; 0 decodes in this one."""
    checkpoint_every_num_steps: int = Field(default=50, ge=0)
    """Optimiser steps between two checkpoints, from which an interrupted training goes on; one
    more is made after the last step. 0 makes none. The newest two are kept, each three times
    the adapter's size."""

    @model_validator(mode="after")
    def _shards_are_not_checkpointed(self) -> Self:
        if self.accelerate_config is not None and self.checkpoint_every_num_steps > 0:
            raise ValueError(
                "checkpoint_every_num_steps cannot go with accelerate_config: checkpoints of a "
                "training whose weights are spread over GPUs are not supported. Set it to 0."
            )
        return self

    @property
    def is_launched(self) -> bool:
        """Whether training runs in processes of its own."""
        return self.num_processes > 1 or self.accelerate_config is not None

    def total_steps(self, num_rows: int) -> int:
        """Optimiser steps of a training on that many pairs or demonstrations."""
        if self.num_steps is not None:
            return self.num_steps
        num_rounds = math.ceil(num_rows / (self.batch_size * self.num_processes))
        return math.ceil(num_rounds / self.gradient_accumulation_steps) * self.num_epochs

    def planned(
        self, num_rows: int, *, sequences: int, reference_sequences: int = 0
    ) -> PlannedTraining:
        """The work on `num_rows` lessons of so many sequences each."""
        return PlannedTraining(
            num_updates=self.total_updates(num_rows),
            num_reference_rows=num_rows if reference_sequences else 0,
            sequences=sequences,
            reference_sequences=reference_sequences,
            batch_size=self.batch_size,
            num_processes=self.num_processes,
            num_processes_setting="num_processes",
            is_sharded=self.accelerate_config is not None,
            lora_rank=self.lora_rank,
            gradient_checkpointing=self.gradient_checkpointing,
            checkpointing_setting="gradient_checkpointing",
            dtype=self.dtype,
            dtype_setting="dtype",
            num_checkpoints=2 if self.checkpoint_every_num_steps else 0,
        )

    def total_updates(self, num_rows: int) -> int:
        """Rows that pass in all, repetitions counted."""
        if self.num_steps is None:
            return num_rows * self.num_epochs
        step_rows = self.batch_size * self.gradient_accumulation_steps * self.num_processes
        return self.num_steps * step_rows
