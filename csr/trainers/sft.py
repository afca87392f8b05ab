"""Supervised fine-tuning by TRL: the policy imitates demonstrations, each by its weight.

The loss is `mean over demonstrations of weight x mean over the response's tokens of -log p`, in
nats: the weighted sum of cross-entropies that ILLUME trains on (arXiv:2208.08241, section 3.4) and,
with weights of 1, what STIC's second stage does (arXiv:2405.19716, section 4.2).

As in preference training a fresh LoRA adapter is trained, on responses as they were sampled and
prompts as they were rendered for sampling, and merged afterwards. There is no reference policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from csr.planning import PlannedTraining
from csr.protocols import Trainer as TrainerProtocol
from csr.protocols import TrainingTable
from csr.trainers._adapter_trainer import AdapterTrainer
from csr.trainers._demonstrations import TrainingDemonstration, read_demonstrations
from csr.trainers._policy_files import stored_dtype
from csr.trainers._settings import TrainingSettings
from csr.trainers._sft import DemonstrationCollator, make_sft_trainer
from csr.trainers._watch import TrainingWatch

READS: TrainingTable = "demonstrations"


class Config(TrainingSettings):
    """How one iteration trains on demonstrations."""

    learning_rate: float = Field(default=2e-5, gt=0)
    """Peak rate for AdamW (STIC's code, second stage: 2e-5)."""


def build(config: Config) -> TrainerProtocol:
    """The trainer. Nothing is loaded yet."""
    return SFT(config)


def check_model(path: Path) -> None:
    """ModelError where the weights at `path` are quantised, which training cannot merge into."""
    stored_dtype(path)


def planned_training(config: Config, num_lessons: int) -> PlannedTraining:
    """One sequence a demonstration."""
    return config.planned(num_lessons, sequences=1)


class SFT(AdapterTrainer):
    """Implements `csr.protocols.Trainer`."""

    module = __name__
    reads = READS
    num_reference_passes = 0

    def read(self, data_path: Path) -> list[TrainingDemonstration]:
        """The demonstrations. DataError on an empty or broken table."""
        return read_demonstrations(data_path)

    def make(
        self, model: Any, processor: Any, rows: Sequence[Any], watch: TrainingWatch, **place: Any
    ) -> Any:
        """TRL's trainer over the demonstrations."""
        collator = DemonstrationCollator(processor, rows)
        return make_sft_trainer(model, processor, collator, watch, config=self.config, **place)
