"""TRL's DPOTrainer, fed with our batches, our reference log-probabilities and our checks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from csr.errors import EnvironmentFault
from csr.trainers._arguments import (
    common_arguments,
    new_adapter,
    numbered_rows,
    settle_arguments,
)
from csr.trainers._batches import CORRUPTED, PAIR_ROWS, REFERENCE_COLUMNS, PairCollator
from csr.trainers._image_loss import loss_with_image_terms, reference_columns
from csr.trainers._image_passes import Recording
from csr.trainers._resumable import Resumable
from csr.trainers._shards import with_trainable
from csr.trainers._shared_images import share_image_features
from csr.trainers._shared_prompts import share_prompts
from csr.trainers._watch import Watched

if TYPE_CHECKING:
    from csr.trainers._checkpoints import Checkpoints
    from csr.trainers._image_terms import ImageTerms
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
    from transformers import PrinterCallback
    from trl import DPOConfig
    from trl.trainer.utils import disable_dropout_in_model

    # TRL switches off all dropout or none; the adapter's own is the user's to choose.
    disable_dropout_in_model(model)
    share_image_features(model)
    share_prompts(model)
    rows = range(len(collator.pairs))
    arguments = DPOConfig(
        beta=config.beta,
        loss_type=list(config.loss_type),
        loss_weights=list(config.loss_weights) if config.loss_weights else None,
        label_smoothing=config.label_smoothing,
        ld_alpha=config.ld_alpha,
        disable_dropout=False,
        **common_arguments(config, work_dir, device, seed, model.dtype, len(rows)),
    )
    settle_arguments(arguments, config, saves=checkpoints is not None)
    trainer = _trainer_class()(
        watch,
        checkpoints,
        config.image_terms,
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=numbered_rows(len(rows)),
        processing_class=processor,
        peft_config=new_adapter(config, model),
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
    known: dict[int, tuple[float, ...]] = {}
    adapter = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    trainer.model.eval()
    for start in range(0, len(own), batch_size):
        rows = list(own[start : start + batch_size])
        batch = send_to_device(collator([{"row": row} for row in rows]), trainer.args.device)
        del batch[PAIR_ROWS]
        corrupted = batch.pop(CORRUPTED, None)
        clean = Recording(trainer.model_wrapped, trainer.model)
        columns = list(trainer.compute_ref_log_probs(with_trainable(adapter, clean), batch))
        if corrupted is not None:
            columns += reference_columns(trainer, trainer.image_terms, clean, batch, corrupted)
        found = list(zip(*(column.tolist() for column in columns), strict=True))
        trainer.watch.reference(rows, found)
        known |= zip(rows, found, strict=True)
    everyones = dict(gather_object(list(known.items())))
    collator.reference_logprobs = [everyones[row] for row in range(len(collator.pairs))]
    trainer.precompute_ref_logps = True


def _trainer_class() -> Any:
    from trl import DPOTrainer

    class WatchedDPOTrainer(Resumable, Watched, DPOTrainer):  # type: ignore[misc]  # TRL has no types
        """DPOTrainer that reports to a `TrainingWatch` and to nobody else."""

        def __init__(
            self,
            watch: TrainingWatch,
            checkpoints: Checkpoints | None,
            image_terms: ImageTerms | None,
            **kwargs: Any,
        ) -> None:
            self.watch, self.checkpoints, self.image_terms = watch, checkpoints, image_terms
            super().__init__(**kwargs)

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            rows = inputs.pop(PAIR_ROWS).tolist()
            text_loss = super().compute_loss
            if self.image_terms is None:
                inputs.pop(REFERENCE_COLUMNS, None)
                loss = text_loss(model, inputs, return_outputs, num_items_in_batch)
            else:
                loss = loss_with_image_terms(self, model, inputs, text_loss)
            self.watch.batch(self.state.global_step + 1, rows, loss.item())
            return loss

    return WatchedDPOTrainer
