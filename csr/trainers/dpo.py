"""Direct preference optimisation (arXiv 2305.18290) by TRL, as CSR uses it (arXiv 2405.14622).

Each iteration trains a fresh LoRA adapter on the policy that sampled the pairs. That
policy, which is the model with the adapter switched off, is the reference: its
log-probabilities are computed once per pair. Responses are the sampled token ids and
prompts are rendered as they were for sampling, so no text is tokenised again. Both
responses are conditioned on the prompt's image, whatever image the rejected one saw.
The adapter is merged afterwards, and the merged weights are the next policy.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from csr.config import ComponentConfig
from csr.errors import DataError, NumericalError
from csr.images import load_image
from csr.memory import memory_errors
from csr.protocols import Progress, TrainingResult, TrainingTable
from csr.protocols import Trainer as TrainerProtocol
from csr.rendering import load_processor
from csr.trainers._batches import PairCollator
from csr.trainers._checkpoints import Checkpoints, training_sha256
from csr.trainers._isolation import preserved_globals, staged_output
from csr.trainers._pairs import read_pairs
from csr.trainers._policy_files import (
    DeviceName,
    DtypeName,
    load_policy,
    pick_device,
    save_adapter,
    save_merged,
    stored_dtype,
)
from csr.trainers._processes import train_in_processes
from csr.trainers._scoring import response_logprobs
from csr.trainers._trl import cache_reference, make_trainer
from csr.trainers._watch import TrainingWatch
from csr.types import PolicyRef, Prompt

LossName = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot",
    "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
"""TRL's names. "sigmoid" is DPO; "sft" adds the chosen response's mean negative log-likelihood."""

_FINAL_SHARE = 0.1
"""Reported figures are means over this last share of the steps: one step alone is noisy."""
_MEMORY_ADVICE = (
    "Lower the trainer's batch_size (and raise gradient_accumulation_steps alike), or set "
    "gradient_checkpointing."
)


READS: TrainingTable = "pairs"


class Config(ComponentConfig):
    """How one iteration trains. Defaults suit a 7B model on one 80 GB GPU."""

    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull to the reference policy, per nat of log-ratio (CSR: 0.1)."""
    loss_type: tuple[LossName, ...] = Field(default=("sigmoid",), min_length=1)
    """Loss terms by TRL's names, summed with `loss_weights`."""
    loss_weights: tuple[float, ...] | None = None
    """One weight for each loss term; None weighs each 1."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Assumed share of swapped preferences, for the losses that use it (exo_pair needs > 0)."""
    ld_alpha: float | None = Field(default=None, ge=0, le=1)
    """LD-DPO (arXiv:2409.06411): weight of a response's tokens beyond the length of the shorter
    of the two; 0 compares equal lengths alone, None is 1."""
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
    """Passes over the pairs (CSR's code: 1)."""
    batch_size: int = Field(default=4, ge=1)
    """Pairs in one forward pass; each is two sequences."""
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
    gradient_accumulation_steps x num_processes pairs; a last, smaller round repeats a few."""
    dataloader_workers: int = Field(default=0, ge=0)
    """Processes that decode images ahead of the model; 0 decodes in this one."""
    checkpoint_every_num_steps: int = Field(default=50, ge=0)
    """Optimiser steps between two checkpoints, from which an interrupted training goes on; one
    more is made after the last step. 0 makes none. The newest two are kept, each three times
    the adapter's size."""

    @model_validator(mode="after")
    def _one_weight_a_loss(self) -> Self:
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            raise ValueError(
                f"loss_weights has {len(self.loss_weights)} values for {len(self.loss_type)} "
                "entries of loss_type. Give one weight for each."
            )
        if "exo_pair" in self.loss_type and self.label_smoothing == 0:
            raise ValueError(
                "The loss exo_pair needs label_smoothing above 0; its paper uses 1e-3."
            )
        return self


def build(config: Config) -> TrainerProtocol:
    """The trainer. Nothing is loaded yet."""
    return DPO(config)


def check_model(path: Path) -> None:
    """ModelError where the weights at `path` are quantised, which training cannot merge into."""
    stored_dtype(path)


class DPO:
    """Implements `csr.protocols.Trainer`."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def train(
        self,
        *,
        policy: PolicyRef,
        data_path: Path,
        output_dir: Path,
        seed: int,
        progress: Progress,
        checkpoint_dir: Path | None = None,
    ) -> TrainingResult:
        """See the protocol. Writes `output_dir/model` and `output_dir/adapter`.

        `progress` counts pairs: one pass for the reference, then the epochs. DataError on
        an empty or broken pairs table, ModelError on a checkpoint that cannot be trained.
        """
        config, checkpoints = self._config, None
        if checkpoint_dir is not None and config.checkpoint_every_num_steps > 0:
            name = training_sha256(policy, data_path, config, seed, pick_device(config.device))
            checkpoints = Checkpoints(directory=checkpoint_dir.absolute(), training_sha256=name)
            checkpoints.remove_unusable()
        here = self.train_here if config.num_processes == 1 else self._train_in_processes
        try:
            return here(
                policy=policy,
                data_path=data_path,
                output_dir=output_dir,
                seed=seed,
                progress=progress,
                checkpoints=checkpoints,
            )
        except NumericalError:
            if checkpoints is not None:  # from them the same would come of it
                shutil.rmtree(checkpoints.directory, ignore_errors=True)
            raise

    def train_here(
        self,
        *,
        policy: PolicyRef,
        data_path: Path,
        output_dir: Path,
        seed: int,
        progress: Progress,
        checkpoints: Checkpoints | None = None,
        rank: int = 0,
    ) -> TrainingResult:
        """`train` in this process, which is number `rank` of `num_processes`; 0 alone saves."""
        config = self._config
        pairs = read_pairs(data_path)
        watch = TrainingWatch(
            pairs, len(pairs) * (1 + config.num_epochs), progress, config.num_processes
        )
        names = ("model", "adapter") if rank == 0 else ()
        with (
            staged_output(output_dir, names) as work,
            preserved_globals(),
            memory_errors("training", _MEMORY_ADVICE),
        ):
            device = pick_device(config.device)
            processor = load_processor(policy.model_path)
            collator = PairCollator(processor, pairs)
            trainer = make_trainer(
                load_policy(policy.model_path, config.dtype, "cpu"),  # TRL moves it to its GPU
                processor,
                collator,
                watch,
                config=config,
                work_dir=work,
                device=device,
                seed=seed,
                checkpoints=checkpoints,
            )
            # Every process looks before any can have made a step, so all find the same.
            checkpoint = checkpoints.latest() if checkpoints else None
            if checkpoint is None:
                cache_reference(trainer, collator, config.batch_size)
            trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
            if rank == 0:
                save_adapter(trainer.model, work / "adapter")
                save_merged(trainer.model, policy.model_path, work / "model")
            del trainer
        return TrainingResult(
            model_path=output_dir / "model",
            adapter_path=output_dir / "adapter",
            metrics=_final_metrics(watch.history, len(pairs), watch.seconds),
            history=watch.history,
        )

    def _train_in_processes(self, **job: Any) -> TrainingResult:
        return train_in_processes(self._config, **job)

    def score(
        self, model_path: str, prompts: Sequence[Prompt], token_ids: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        """See the protocol. Loads the model, scores in batches of `batch_size`, frees it."""
        if len(prompts) != len(token_ids):
            raise DataError(
                f"{len(prompts)} prompts but {len(token_ids)} responses to score. Give one "
                "response for each prompt."
            )
        config, size = self._config, self._config.batch_size
        with preserved_globals(), memory_errors("scoring", _MEMORY_ADVICE):
            processor = load_processor(model_path)
            model = load_policy(model_path, config.dtype, pick_device(config.device))
            scored: list[tuple[float, ...]] = []
            for start in range(0, len(prompts), size):
                part = prompts[start : start + size]
                scored += response_logprobs(
                    model,
                    processor,
                    [prompt.text for prompt in part],
                    [load_image(prompt.image) for prompt in part],
                    token_ids[start : start + size],
                )
            del model
        return scored


def _final_metrics(
    history: list[dict[str, float]], num_pairs: int, seconds: float
) -> dict[str, Any]:
    """Means over the last steps, plus counts. `loss_first` is log 2 for plain DPO."""
    last = history[-max(1, round(_FINAL_SHARE * len(history))) :]
    names = [name for name in history[0] if name not in ("step", "epoch", "learning_rate")]
    means = {name: sum(row[name] for row in last) / len(last) for name in names}
    return means | {
        "loss_first": history[0]["loss"],
        "num_steps": float(len(history)),
        "num_pairs": float(num_pairs),
        "seconds": seconds,
    }
