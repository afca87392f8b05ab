"""A batch's loss with image terms, and what of it the reference policy knows beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from csr.trainers._batches import CORRUPTED, REFERENCE_COLUMNS
from csr.trainers._image_passes import (
    Recording,
    Responses,
    check_head,
    head_of,
    reference_scored,
    scored,
)
from csr.trainers._image_terms import (
    CORRUPTED_LOGPROB,
    FLIP_MARGIN,
    ImageTerms,
    anchor_loss,
    conditional_loss,
    paper_distortion_loss,
    released_distortion_loss,
)

Batch = dict[str, Any]


def reference_columns(
    trainer: Any, terms: ImageTerms, clean: Recording, batch: Batch, corrupted: Batch
) -> list[Any]:
    """`terms.reference_columns`, each (pairs,): what the reference policy gives beside the two
    responses' log-probabilities.

    `clean` has seen `batch` with the adapter off. ModelError where the model's head alone does
    not give its logits.
    """
    import torch

    found: dict[str, Any] = {}
    with torch.no_grad():
        head, said = head_of(trainer.model), clean.responses(batch, len(batch["input_ids"]) // 2)
        if terms.distortion is not None:
            check_head(said, head)
        if terms.reference_columns:
            seen = reference_scored(trainer, corrupted)
            found[CORRUPTED_LOGPROB] = seen.sums()
            found[FLIP_MARGIN] = said.margins_over(seen.likeliest(head), head)
    return [found[name] for name in terms.reference_columns]


def loss_with_image_terms(
    trainer: Any, model: Any, inputs: Batch, text_loss: Callable[[Any, Batch], Any]
) -> Any:
    """A batch's loss by `trainer.image_terms`; `text_loss` is TRL's own, of model and batch.

    Tells the figures of the terms to TRL's log, as means over all processes. Takes out of
    `inputs` what the model does not know.
    """
    assert trainer.precompute_ref_logps, "the terms read the cached reference"
    terms = trainer.image_terms
    corrupted, columns = inputs.pop(CORRUPTED, None), inputs.pop(REFERENCE_COLUMNS)
    clean = Recording(model, trainer.model)
    loss, figures = ImageLoss(
        trainer=trainer,
        terms=terms,
        clean=clean,
        batch=inputs,
        corrupted=corrupted,
        reference=dict(zip(terms.reference_columns, columns.unbind(dim=1), strict=True)),
    ).add_to(text_loss(clean, inputs))
    for name, value in figures.items():
        mean = trainer.accelerator.gather(value).mean().item()
        trainer._metrics["train"][name].append(mean)
    return loss


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLoss:
    """The terms of one batch, after TRL's pass over it."""

    trainer: Any
    terms: ImageTerms
    clean: Recording
    """Of TRL's pass."""
    batch: Batch
    """What TRL computed its loss from."""
    corrupted: Batch | None
    """The chosen responses with corrupted images, where a term looks at them."""
    reference: dict[str, Any]
    """`terms.reference_columns`, each (pairs,)."""

    def add_to(self, text_loss: Any) -> tuple[Any, dict[str, Any]]:
        """The whole loss, TRL's being `text_loss`, and the figures that the history tells."""
        terms, loss, figures = self.terms, text_loss, {"text_loss": text_loss}
        seen = self._corrupted_pass()
        if terms.distortion is not None:
            image_loss, figures["flipped_token_share"] = self._distortion(seen)
            figures["image_loss"] = loss = image_loss
            if terms.distortion == "released":
                share = terms.distortion_weight
                loss = (1 - share) * text_loss + share * image_loss
        chosen, beta = self._log_ratios()[0], self.trainer.beta
        if terms.conditional_weight > 0:
            corrupted = seen.sums() - self.reference[CORRUPTED_LOGPROB]
            figures["conditional_loss"] = conditional_loss(chosen, corrupted, beta).mean()
            figures["conditional_margin"] = beta * (chosen - corrupted).mean()
            loss = loss + terms.conditional_weight * figures["conditional_loss"]
        if terms.anchor_weight > 0:
            figures["anchor_loss"] = anchor_loss(chosen, beta, terms.anchor_delta).mean()
            loss = loss + terms.anchor_weight * figures["anchor_loss"]
        return loss, {name: value.detach() for name, value in figures.items()}

    def _corrupted_pass(self) -> Any:
        """Keeps its graph only where a term has a gradient through it."""
        import torch

        if self.corrupted is None:
            return None
        with_gradient = self.terms.conditional_weight > 0 or self.terms.distortion == "paper"
        with torch.set_grad_enabled(with_gradient):
            return scored(self.trainer.model, self.corrupted)

    def _distortion(self, seen: Responses) -> tuple[Any, Any]:
        """The term, and the share of a chosen response's tokens that the noise flips: both means
        over the pairs.
        """
        head, terms, beta = head_of(self.trainer.model), self.terms, self.trainer.beta
        flips = seen.likeliest(head)
        flipped_share = seen.mean_share(flips != seen.token_ids)
        if terms.distortion == "released":
            said = self.clean.responses(self.batch, len(seen.lengths))
            margin = said.margins_over(flips, head)
            each = released_distortion_loss(margin, self.reference[FLIP_MARGIN], beta)
        else:
            assert self.corrupted is not None
            noisy = seen.replaced_sums(flips, head)
            reference = reference_scored(self.trainer, self.corrupted).replaced_sums(flips, head)
            chosen, rejected = self._log_ratios()
            each = paper_distortion_loss(
                chosen, rejected, noisy - reference, beta=beta, weight=terms.distortion_weight
            )
        return each.mean(), flipped_share

    def _log_ratios(self) -> tuple[Any, Any]:
        """(pairs,) each: of chosen and rejected, on the clean image."""
        chosen, rejected = self.clean.sums().chunk(2)
        return chosen - self.batch["ref_chosen_logps"], rejected - self.batch["ref_rejected_logps"]
