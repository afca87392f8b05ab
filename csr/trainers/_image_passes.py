"""The forward passes behind the image terms, and what each of them gives.

The clean images pass through the model once a batch, in TRL's own pass: TRL is handed a
`Recording` in the model's place. What is added is one pass of the chosen responses with their
corrupted images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from csr.errors import ModelError
from csr.trainers._batches import COMPLETION_MASK

_MAX_HEAD_DIFFERENCE = 0.1
"""Nats a token, on average. Rounding to bfloat16 alone makes less than a tenth of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Responses:
    """Responses as a model scored them under their images, tokens of all one after the other."""

    token_ids: Any
    """(tokens,)"""
    logprobs: Any
    """(tokens,), in nats, of each token."""
    states: Any
    """(tokens, width): the last hidden state, which the head turns into the token's logits."""
    lengths: list[int]
    """Tokens of each response."""

    def sums(self) -> Any:
        """(responses,): log-probability of each response."""
        return per_response(self.logprobs, self.lengths)

    def likeliest(self, head: Any) -> Any:
        """(tokens,): what the model finds likeliest in each token's place. Carries no gradient."""
        import torch

        with torch.no_grad():
            return head(self.states).argmax(dim=-1)

    def logprobs_of(self, token_ids: Any, head: Any) -> Any:
        """(tokens,): log-probability of other tokens in the places of these."""
        logprobs = head(self.states).float().log_softmax(dim=-1)
        return logprobs.gather(-1, token_ids[:, None])[:, 0]

    def replaced_sums(self, token_ids: Any, head: Any) -> Any:
        """(responses,): log-probability of other tokens in the places of these, summed."""
        return per_response(self.logprobs_of(token_ids, head), self.lengths)

    def margins_over(self, token_ids: Any, head: Any) -> Any:
        """(responses,): how much likelier, in nats, these tokens are than others in their places.

        The softmax's denominator is the same for both and cancels, so two rows of the head are
        enough. Where both are one token the difference and its gradient are exactly 0.
        """
        rows = head.weight[self.token_ids].float() - head.weight[token_ids].float()
        leads = (self.states.float() * rows).sum(dim=-1)
        if head.bias is not None:
            leads = leads + (head.bias[self.token_ids] - head.bias[token_ids]).float()
        return per_response(leads, self.lengths)

    def mean_share(self, chosen: Any) -> Any:
        """The share of a response's tokens that are `chosen` (tokens,), averaged over responses,
        so that it does not depend on which of them share a batch.
        """
        import torch

        lengths = torch.tensor(self.lengths, device=chosen.device)
        return (per_response(chosen.float(), self.lengths) / lengths).mean()


class Recording:
    """Stands in for a model in one call, and keeps what came out of it.

    `model` is called as given (it may be wrapped for several processes); `peft_model` is the
    same model without such a wrapper.
    """

    def __init__(self, model: Any, peft_model: Any) -> None:
        self._model = model
        # What TRL's fused head calls: its last hidden states are those that TRL scores.
        self._backbone = peft_model.get_base_model().base_model
        self._logprobs: Any = None
        self._states: Any = None

    def __call__(self, **inputs: Any) -> Any:
        hook = self._backbone.register_forward_hook(self._keep_states)
        try:
            output = self._model(**inputs)
        finally:
            hook.remove()
        self._logprobs = output.log_probs
        return output

    def sums(self) -> Any:
        """(rows,): log-probability of each row's response."""
        return self._logprobs.sum(dim=1)  # 0 at every other token

    def responses(self, batch: dict[str, Any], num_rows: int) -> Responses:
        """The first `num_rows` rows of the batch that it was called with."""
        mask = batch[COMPLETION_MASK][:num_rows, 1:].bool()
        return Responses(
            token_ids=batch["input_ids"][:num_rows, 1:][mask],
            logprobs=self._logprobs[:num_rows][mask],
            states=self._states[:num_rows, :-1][mask],
            lengths=mask.sum(dim=1).tolist(),
        )

    def _keep_states(self, module: Any, arguments: Any, output: Any) -> None:
        self._states = output.last_hidden_state


def scored(peft_model: Any, batch: dict[str, Any]) -> Responses:
    """One pass over a batch, as TRL makes it; with a gradient where gradients are on."""
    mask = batch[COMPLETION_MASK]
    inputs = {name: value for name, value in batch.items() if name != COMPLETION_MASK}
    recording = Recording(peft_model, peft_model)
    labels = batch["input_ids"].masked_fill(mask == 0, -100)
    recording(**inputs, labels=labels, use_cache=False, fused_lm_head=True)
    return recording.responses(batch, len(mask))


def reference_scored(trainer: Any, batch: dict[str, Any]) -> Responses:
    """`scored` by the reference policy: the adapter is off, and no gradient is kept."""
    import torch

    with torch.no_grad(), trainer.model.disable_adapter(), trainer.accelerator.autocast():
        return scored(trainer.model, batch)


def head_of(peft_model: Any) -> Any:
    """The linear layer from hidden states to logits. It has no adapter."""
    return peft_model.get_base_model().get_output_embeddings()


def check_head(responses: Responses, head: Any) -> None:
    """ModelError where the model does more than its head to get its logits, such as a soft cap."""
    import torch

    with torch.no_grad():
        own = responses.logprobs_of(responses.token_ids, head)
        difference = float((own - responses.logprobs).abs().mean())
    if difference > _MAX_HEAD_DIFFERENCE:
        raise ModelError(
            "This model changes its logits behind its last layer (by a soft cap or a factor): "
            f"log-probabilities differ by {difference:.2f} nats a token. POVID's distortion needs "
            "them as the layer gives them. Leave image_terms.distortion out, or train a model of "
            "another family."
        )


def per_response(values: Any, lengths: list[int]) -> Any:
    """(responses,): the sums of the tokens' values, always added up in the same order."""
    import torch

    return torch.stack([part.sum() for part in values.split(lengths)])
