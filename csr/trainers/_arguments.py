"""What TRL's trainers are told in common, whatever their objective."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from csr.trainers._lora import language_linear_names

if TYPE_CHECKING:
    from csr.trainers._settings import TrainingSettings


def num_warmup_steps(config: TrainingSettings, num_rows: int) -> int:
    """Optimiser steps over which the rate rises, rounded down.

    The first of them changes nothing. transformers rounds up, so of a run of a single step
    nothing would be left.
    """
    return int(config.warmup_ratio * config.total_steps(num_rows))


def common_arguments(
    config: TrainingSettings, work_dir: Path, device: str, seed: int, dtype: Any, num_rows: int
) -> dict[str, Any]:
    """Keyword arguments of TRL's configurations."""
    import torch

    return {
        "output_dir": str(work_dir / "trl"),
        "max_length": None,  # a cut could take image tokens while their features stay
        "num_train_epochs": config.num_epochs,
        "max_steps": config.num_steps or -1,
        "per_device_train_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.lr_scheduler,
        "warmup_steps": num_warmup_steps(config, num_rows),
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "gradient_checkpointing": config.gradient_checkpointing,
        "bf16": dtype == torch.bfloat16,
        "use_cpu": device == "cpu",
        "seed": seed,
        "data_seed": seed,
        "dataloader_num_workers": config.dataloader_workers,
        "dataloader_pin_memory": device == "cuda",
        "remove_unused_columns": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "log_level": "error",
        "disable_tqdm": True,
        "report_to": "none",
    }


def settle_arguments(arguments: Any, config: TrainingSettings, *, saves: bool) -> None:
    """What can only be set once the arguments are made."""
    if arguments.n_gpu > 1:
        # Several GPUs without a launcher: Trainer would choose nn.DataParallel, which TRL
        # refuses. The model is on the first GPU; counting one keeps it there.
        arguments._n_gpu = 1
    if saves:
        arguments.set_save(strategy="steps", steps=config.checkpoint_every_num_steps)


def numbered_rows(num_rows: int) -> Any:
    """A dataset of row numbers: the collator has the rows themselves."""
    from datasets import Dataset

    # TRL takes the column `images` as the sign of a vision dataset, which it leaves alone.
    return Dataset.from_dict({"row": list(range(num_rows)), "images": [[]] * num_rows})


def new_adapter(config: TrainingSettings, model: Any) -> Any:
    """PEFT's configuration of a fresh LoRA adapter on the language model."""
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=language_linear_names(model),
        bias="none",
        task_type="CAUSAL_LM",
    )
