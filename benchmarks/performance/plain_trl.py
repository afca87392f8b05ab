"""DPO on a vision-language model as TRL's own documentation does it, to the merged weights.

The reference is computed in every step, and each image is encoded for either response.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csr.images import load_image
from csr.trainers import dpo
from csr.types import Prompt


def train(
    config: dpo.Config,
    model_path: str,
    prompts: Sequence[Prompt],
    texts: Sequence[tuple[str, str]],
    folder: Path,
) -> int:
    """Train on a pair of (chosen, rejected) for each prompt; how many steps were made."""
    from transformers import AutoModelForImageTextToText, AutoProcessor, PrinterCallback
    from trl import DPOConfig, DPOTrainer

    from csr.trainers._arguments import common_arguments, new_adapter

    model = AutoModelForImageTextToText.from_pretrained(model_path, dtype="auto")
    arguments = common_arguments(config, folder, "cpu", 0, model.dtype, len(prompts))
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(beta=config.beta, **arguments),
        train_dataset=_dataset(prompts, texts),
        processing_class=AutoProcessor.from_pretrained(model_path),
        peft_config=new_adapter(config, model),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.model.merge_and_unload().save_pretrained(folder / "model")
    return int(trainer.state.global_step)


def _dataset(prompts: Sequence[Prompt], texts: Sequence[tuple[str, str]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(
        [
            {
                "images": [load_image(prompt.image)],
                "prompt": [{"role": "user", "content": prompt.text}],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
            }
            for prompt, (chosen, rejected) in zip(prompts, texts, strict=True)
        ]
    )
