"""Direct preference optimisation (arXiv 2305.18290) by TRL, as CSR uses it (arXiv 2405.14622).

Each iteration trains a fresh LoRA adapter on the policy that sampled the pairs. That
policy, which is the model with the adapter switched off, is the reference: its
log-probabilities are computed once per pair. Responses are the sampled token ids and
prompts are rendered as they were for sampling, so no text is tokenised again. Both
responses are conditioned on the prompt's image, whatever image the rejected one saw.
The adapter is merged afterwards, and the merged weights are the next policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from csr.planning import PlannedTraining
from csr.protocols import Trainer as TrainerProtocol
from csr.protocols import TrainingTable
from csr.trainers._adapter_trainer import AdapterTrainer
from csr.trainers._batches import PairCollator
from csr.trainers._image_terms import ImageTerms
from csr.trainers._pairs import TrainingPair, read_pairs
from csr.trainers._policy_files import stored_dtype
from csr.trainers._settings import TrainingSettings
from csr.trainers._trl import cache_reference, make_trainer
from csr.trainers._watch import TrainingWatch

LossName = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot",
    "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
"""TRL's names. "sigmoid" is DPO; "sft" adds the chosen response's mean negative log-likelihood."""

READS: TrainingTable = "pairs"


class Config(TrainingSettings):
    """How one iteration trains on pairs."""

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
    image_terms: ImageTerms | None = None
    """Terms that compare the image with a corrupted one (POVID, mDPO); None adds none."""

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

    @model_validator(mode="after")
    def _image_terms_fit_the_loss(self) -> Self:
        terms = self.image_terms
        if terms is None:
            return self
        if terms.distortion == "paper" and self.accelerate_config is not None:
            raise ValueError(
                "image_terms.distortion 'paper' cannot go with accelerate_config: it asks the "
                "model's head behind its passes, where a model in shards has let go of it. Take "
                "'released', or train whole copies."
            )
        if self.ld_alpha is not None:
            raise ValueError(
                "ld_alpha cannot go with image_terms: they are defined on whole responses. Remove "
                "one of the two."
            )
        plain = self.loss_type == ("sigmoid",) and self.loss_weights is None
        if terms.distortion == "paper" and not plain:
            raise ValueError(
                "image_terms.distortion 'paper' is a loss of its own in place of loss_type: leave "
                "loss_type and loss_weights out, or take 'released'."
            )
        return self


def build(config: Config) -> TrainerProtocol:
    """The trainer. Nothing is loaded yet."""
    return DPO(config)


def check_model(path: Path) -> None:
    """ModelError where the weights at `path` are quantised, which training cannot merge into."""
    stored_dtype(path)


def planned_training(config: Config, num_lessons: int) -> PlannedTraining:
    """Two sequences a pair, and one more where an image term looks at a corrupted image."""
    terms = config.image_terms
    return config.planned(
        num_lessons,
        sequences=2 + (terms is not None and terms.need_corruption),
        reference_sequences=2 + (terms is not None and len(terms.reference_columns) > 0),
    )


class DPO(AdapterTrainer):
    """Implements `csr.protocols.Trainer`."""

    module = __name__
    reads = READS
    num_reference_passes = 1
    config: Config

    def read(self, data_path: Path) -> list[TrainingPair]:
        """The pairs. DataError on an empty or broken table."""
        return read_pairs(data_path)

    def make(
        self, model: Any, processor: Any, rows: Sequence[Any], watch: TrainingWatch, **place: Any
    ) -> Any:
        """TRL's trainer over the pairs."""
        terms = self.config.image_terms
        collator = PairCollator(processor, rows, terms.corruption if terms else None)
        return make_trainer(model, processor, collator, watch, config=self.config, **place)

    def begin(self, trainer: Any) -> None:
        """Compute the reference's log-probabilities, once a pair."""
        cache_reference(trainer, trainer.data_collator, self.config.batch_size)
