"""TRL's SFTTrainer, fed with our batches, with a weight for each demonstration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csr.images import load_image
from csr.rendering import response_token_ids
from csr.trainers._arguments import (
    common_arguments,
    new_adapter,
    numbered_rows,
    settle_arguments,
)
from csr.trainers._batches import COMPLETION_MASK, response_batch
from csr.trainers._demonstrations import TrainingDemonstration
from csr.trainers._resumable import Resumable
from csr.trainers._watch import Watched

if TYPE_CHECKING:
    from csr.trainers._checkpoints import Checkpoints
    from csr.trainers._settings import TrainingSettings
    from csr.trainers._watch import TrainingWatch

ROWS, WEIGHTS = "demonstration_rows", "weights"


@dataclass
class DemonstrationCollator:
    """Turns dataset rows `{"row": i}` into a batch for the model's forward.

    `demonstration_rows`, `weights` and the mask over the responses' tokens must be taken out
    before the forward.
    """

    processor: Any
    demonstrations: Sequence[TrainingDemonstration]

    @cached_property
    def responses(self) -> list[tuple[int, ...]]:
        """Each demonstration's token ids; of texts nobody sampled by the model's template."""
        return [
            each.token_ids or tuple(response_token_ids(self.processor, each.prompt_text, each.text))
            for each in self.demonstrations
        ]

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        import torch

        rows = [example["row"] for example in examples]
        chosen = [self.demonstrations[row] for row in rows]
        batch = response_batch(
            self.processor,
            [each.prompt_text for each in chosen],
            [load_image(each.image) for each in chosen],
            [self.responses[row] for row in rows],
        )
        batch[ROWS] = torch.tensor(rows)
        batch[WEIGHTS] = torch.tensor([each.weight for each in chosen])
        return batch


def make_sft_trainer(
    model: Any,
    processor: Any,
    collator: DemonstrationCollator,
    watch: TrainingWatch,
    *,
    config: TrainingSettings,
    work_dir: Path,
    device: str,
    seed: int,
    checkpoints: Checkpoints | None = None,
) -> Any:
    """An SFTTrainer whose model is `model` with a fresh adapter, seeded before it is made.

    It saves checkpoints where it is given a place for them.
    """
    from transformers import PrinterCallback
    from trl import SFTConfig
    from trl.trainer.utils import disable_dropout_in_model

    disable_dropout_in_model(model)  # the adapter's own is the user's to choose
    num_rows = len(collator.demonstrations)
    arguments = SFTConfig(**common_arguments(config, work_dir, device, seed, model.dtype, num_rows))
    settle_arguments(arguments, config, saves=checkpoints is not None)
    trainer = _trainer_class()(
        watch,
        checkpoints,
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=numbered_rows(num_rows),
        processing_class=processor,
        peft_config=new_adapter(config, model),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def response_losses(logits: Any, token_ids: Any, mask: Any) -> Any:
    """Mean of -log p over each row's response tokens, in nats, shape (rows,).

    `logits` (rows, tokens, vocabulary), `token_ids` and `mask` (rows, tokens), as they went into
    the model: position t's logits speak of token t + 1. The softmax is taken in 32 bits, over
    response tokens alone.
    """
    import torch
    from torch.nn.functional import cross_entropy

    spoken = mask[:, 1:].bool()
    losses = torch.zeros(spoken.shape, device=logits.device)
    losses[spoken] = cross_entropy(
        logits[:, :-1][spoken].float(), token_ids[:, 1:][spoken], reduction="none"
    )
    return losses.sum(dim=1) / spoken.sum(dim=1)


def _trainer_class() -> Any:
    from trl import SFTTrainer

    class WatchedSFTTrainer(Resumable, Watched, SFTTrainer):  # type: ignore[misc]  # TRL has no types
        """SFTTrainer with weights, that reports to a `TrainingWatch` and to nobody else."""

        def __init__(
            self, watch: TrainingWatch, checkpoints: Checkpoints | None, **kwargs: Any
        ) -> None:
            self.watch, self.checkpoints = watch, checkpoints
            super().__init__(**kwargs)
            # Ours is a mean over rows: without this, Trainer would take it for a sum over tokens.
            self.model_accepts_loss_kwargs = False

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            rows, weights = inputs.pop(ROWS).tolist(), inputs.pop(WEIGHTS)
            mask = inputs.pop(COMPLETION_MASK)
            logits = model(**inputs, use_cache=False).logits
            losses = response_losses(logits, inputs["input_ids"], mask)
            loss = (weights * losses).mean()
            unweighted = self.accelerator.gather(losses.detach().mean()).mean().item()
            self._metrics["train"]["negative_logprob"].append(unweighted)
            self.watch.batch(self.state.global_step + 1, rows, loss.item())
            return loss

    return WatchedSFTTrainer
