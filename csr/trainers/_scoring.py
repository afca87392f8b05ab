"""Log-probabilities of given responses by a plain forward pass of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from csr.trainers._batches import COMPLETION_MASK, response_batch

if TYPE_CHECKING:
    from PIL.Image import Image


def response_logprobs(
    model: Any,
    processor: Any,
    texts: Sequence[str],
    images: Sequence[Image],
    responses: Sequence[Sequence[int]],
) -> list[tuple[float, ...]]:
    """Raw log-probability in nats of each response token, one tuple a prompt, in one batch.

    The model's own head computes the logits; the softmax is taken in 32 bits.
    """
    import torch

    batch = response_batch(processor, texts, images, responses)
    mask = batch.pop(COMPLETION_MASK)[:, 1:].bool()
    inputs = {name: value.to(model.device) for name, value in batch.items()}
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits[:, :-1]
    wanted = inputs["input_ids"][:, 1:, None]
    # One sample at a time: the softmax over a vocabulary is the largest tensor here.
    logprobs = [
        row.float().log_softmax(dim=-1).gather(-1, token_ids)[:, 0].cpu()
        for row, token_ids in zip(logits, wanted, strict=True)
    ]
    return [tuple(row[keep].tolist()) for row, keep in zip(logprobs, mask, strict=True)]
