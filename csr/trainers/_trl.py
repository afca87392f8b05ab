"""TRL's DPOTrainer, fed with our batches, our reference log-probabilities and our checks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csr.errors import EnvironmentFault
from csr.trainers._batches import PAIR_ROWS, PairCollator
from csr.trainers._lora import language_linear_names
from csr.trainers._resumable import Resumable

if TYPE_CHECKING:
    from csr.trainers._checkpoints import Checkpoints
    from csr.trainers._watch import TrainingWatch
    from csr.trainers.dpo import Config


def make_trainer(
    model: Any,
    processor: Any,
    collator: PairCollator,
    watch: TrainingWatch,
    *,
    config: Config,
    work_dir: Path,
    device: str,
    seed: int,
    checkpoints: Checkpoints | None = None,
) -> Any:
    """A DPOTrainer whose model is `model` with a fresh adapter, seeded before it is made.

    It saves checkpoints where it is given a place for them.
    """
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl.trainer.utils import disable_dropout_in_model

    # TRL switches off all dropout or none; the adapter's own is the user's to choose.
    disable_dropout_in_model(model)
    rows = range(len(collator.pairs))
    arguments = _arguments(config, work_dir, device, seed, model.dtype, len(rows))
    if checkpoints is not None:
        arguments.set_save(strategy="steps", steps=config.checkpoint_every_num_steps)
    trainer = _trainer_class()(
        watch,
        checkpoints,
        model=model,
        args=arguments,
        data_collator=collator,
        # TRL takes the column `images` as the sign of a vision dataset, which it leaves alone.
        train_dataset=Dataset.from_dict({"row": list(rows), "images": [[] for _ in rows]}),
        processing_class=processor,
        peft_config=LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=language_linear_names(model),
            bias="none",
            task_type="CAUSAL_LM",
        ),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def cache_reference(trainer: Any, collator: PairCollator, batch_size: int) -> None:
    """Compute every pair's reference log-probabilities once and have the loss use them.

    TRL refuses its own precomputation on image data, but its loss reads the two columns
    from the batch where `precompute_ref_logps` is set. Each process computes its share.
    """
    from accelerate.utils import gather_object, send_to_device

    if not hasattr(trainer, "precompute_ref_logps"):
        raise EnvironmentFault(
            "This version of TRL has no DPOTrainer.precompute_ref_logps, through which the "
            "reference log-probabilities are handed over. Install trl>=1.16,<1.17."
        )
    own = range(trainer.args.process_index, len(collator.pairs), trainer.args.world_size)
    known: dict[int, tuple[float, float]] = {}
    trainer.model.eval()
    for start in range(0, len(own), batch_size):
        rows = list(own[start : start + batch_size])
        batch = send_to_device(collator([{"row": row} for row in rows]), trainer.args.device)
        del batch[PAIR_ROWS]
        chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch)
        both = list(zip(chosen.tolist(), rejected.tolist(), strict=True))
        trainer.watch.reference(rows, both)
        known |= zip(rows, both, strict=True)
    everyones = dict(gather_object(list(known.items())))
    collator.reference_logprobs = [everyones[row] for row in range(len(collator.pairs))]
    trainer.precompute_ref_logps = True


def _trainer_class() -> Any:
    from trl import DPOTrainer

    class WatchedDPOTrainer(Resumable, DPOTrainer):  # type: ignore[misc]  # TRL has no types
        """DPOTrainer that reports to a `TrainingWatch` and to nobody else."""

        def __init__(
            self, watch: TrainingWatch, checkpoints: Checkpoints | None, **kwargs: Any
        ) -> None:
            self.watch, self.checkpoints = watch, checkpoints
            super().__init__(**kwargs)

        def _send_telemetry(self) -> None:
            pass

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            rows = inputs.pop(PAIR_ROWS).tolist()
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            self.watch.batch(self.state.global_step + 1, rows, loss.item())
            return loss

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            super().log(logs, start_time)  # adds TRL's figures of the step to `logs`
            if "loss" in logs:
                self.watch.step(self.state.global_step, logs)

    return WatchedDPOTrainer


def num_warmup_steps(config: Config, num_pairs: int) -> int:
    """Optimiser steps over which the rate rises, rounded down.

    The first of them changes nothing. transformers rounds up, so of a run of a single step
    nothing would be left.
    """
    num_rounds = math.ceil(num_pairs / (config.batch_size * config.num_processes))
    num_steps = math.ceil(num_rounds / config.gradient_accumulation_steps) * config.num_epochs
    return int(config.warmup_ratio * num_steps)


def _arguments(
    config: Config, work_dir: Path, device: str, seed: int, dtype: Any, num_pairs: int
) -> Any:
    import torch
    from trl import DPOConfig

    arguments = DPOConfig(
        output_dir=str(work_dir / "trl"),
        beta=config.beta,
        loss_type=list(config.loss_type),
        loss_weights=list(config.loss_weights) if config.loss_weights else None,
        label_smoothing=config.label_smoothing,
        ld_alpha=config.ld_alpha,
        max_length=None,  # a cut could take image tokens while their features stay
        num_train_epochs=config.num_epochs,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler,
        warmup_steps=num_warmup_steps(config, num_pairs),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        gradient_checkpointing=config.gradient_checkpointing,
        bf16=dtype == torch.bfloat16,
        use_cpu=device == "cpu",
        seed=seed,
        data_seed=seed,
        dataloader_num_workers=config.dataloader_workers,
        dataloader_pin_memory=device == "cuda",
        disable_dropout=False,
        remove_unused_columns=False,
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        log_level="error",
        disable_tqdm=True,
        report_to="none",
    )
    if arguments.n_gpu > 1:
        # Several GPUs without a launcher: Trainer would choose nn.DataParallel, which TRL
        # refuses. The model is on the first GPU; counting one keeps it there.
        arguments._n_gpu = 1
    return arguments
