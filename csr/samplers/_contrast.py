"""Visual debias decoding: say what the image makes likelier (arXiv:2403.05262).

    logit' = (1 + alpha) * logit(y | image) - alpha * logit(y | content-free)

over the tokens y whose logit(y | image) is at least the largest plus log(beta); no other is said.

The content-free views of a row are rows of the same batch, padded like the others. So each has
its own entries in the KV cache, its own attention mask and its own positions: nothing that one view
made is read by another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from csr.config import ComponentConfig, Probability
from csr.label_calibration import ContentFree, content_free_prompts
from csr.types import Prompt

if TYPE_CHECKING:
    import torch


class Contrast(ComponentConfig):
    """How strongly sampling turns away from what the policy says without content."""

    content_free: ContentFree = "none"
    """The prompt without its image, with a grey one, or both: then the mean of their logits. Each
    costs one more row in every forward pass."""
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the difference; 0 leaves the logits as they are (the released evaluators: 1)."""
    beta: Probability = 0.1
    """A token is said only if it has at least this share of the likeliest one's probability with
    the image (the released evaluators: 0.1, for POPE 0.2). 0 forbids none."""


def views(prompts: Sequence[Prompt], contrast: Contrast | None) -> tuple[list[Prompt], list[bool]]:
    """All prompts with their images, then all of them content-free, once for each kind.

    And whether each has an image.
    """
    seen = [(prompt, True) for prompt in prompts]
    if contrast is not None and prompts:
        kinds = zip(*(content_free_prompts(p, contrast.content_free) for p in prompts), strict=True)
        seen += [view for kind in kinds for view in kind]
    return [prompt for prompt, _ in seen], [with_image for _, with_image in seen]


def contrasted(logits: torch.Tensor, num_rows: int, contrast: Contrast) -> torch.Tensor:
    """The logits to choose from [num_rows, vocabulary], -inf where a token must not be said.

    `logits` [a multiple of num_rows, vocabulary] are those of `views`, in their order.
    """
    seeing = logits[:num_rows]
    free = logits[num_rows:].unflatten(0, (-1, num_rows)).mean(0)
    changed = (1 + contrast.alpha) * seeing - contrast.alpha * free
    if contrast.beta == 0:
        return changed
    least = seeing.max(-1, keepdim=True).values + math.log(contrast.beta)
    return changed.masked_fill(seeing < least, float("-inf"))
