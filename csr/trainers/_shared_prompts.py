"""Each prompt of a DPO batch through the language model once, though two responses follow it.

TRL passes [prompt, chosen] and [prompt, rejected] as two sequences, and most of both is one image
and one question. Here they are one sequence, [prompt, chosen, rejected], in which the rejected
tokens do not see the chosen ones and have the positions that they would have by themselves. What
comes out is laid back as TRL expects it: the same values and gradients, up to rounding.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_LEAST_SAVED = 0.1
"""Share of a batch's tokens that must go, for the packing to be worth its own work."""
_LANGUAGE_MODELS = ("language_model", "text_model")
"""What transformers' vision-language models call it."""
_KNOWN_ATTENTION = ("sdpa", "eager")
"""Implementations that take a mask of every token for every other."""


def share_prompts(model: Any) -> None:
    """Have `model` read what a pair of sequences has in common once, where it can.

    `model` is a vision-language model of transformers. One whose language model hides tokens by
    another rule than order (a sliding window), or takes positions of another form, is left alone.
    """
    backbone = getattr(model, "model", None)
    found = (getattr(backbone, name, None) for name in _LANGUAGE_MODELS)
    language_model: Any = next((each for each in found if each is not None), None)
    if language_model is None or not _sees_all_before(language_model.config):
        return
    forward = language_model.forward

    @functools.wraps(forward)
    def forward_once(*arguments: Any, **named: Any) -> Any:
        packing = None if arguments else _packing_for(named)
        if packing is None:
            return forward(*arguments, **named)
        packed = packing.inputs(named["inputs_embeds"])
        output = forward(**(named | packed))
        output.last_hidden_state = packing.unpacked(output.last_hidden_state)
        return output

    language_model.forward = forward_once


def _sees_all_before(config: Any) -> bool:
    windowed = getattr(config, "sliding_window", None) and getattr(
        config, "use_sliding_window", True
    )
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    known = getattr(config, "_attn_implementation", None) in _KNOWN_ATTENTION
    return not windowed and layers == {"full_attention"} and known


def _packing_for(named: dict[str, Any]) -> _Packing | None:
    """How to pack a call's sequences; None where it is not of pairs, or little would be saved."""
    wanted = ("past_key_values", "use_cache", "output_hidden_states", "output_attentions")
    if any(named.get(each) for each in wanted) or named.get("inputs_embeds") is None:
        return None
    embeddings: Any = named["inputs_embeds"]
    mask: Any = named.get("attention_mask")
    positions = named.get("position_ids")
    flat = getattr(mask, "ndim", 0) == 2 and (positions is None or positions.ndim == 2)
    if not flat or len(embeddings) % 2:
        return None
    if bool((mask[:, 1:] > mask[:, :-1]).any()):  # padded on the left
        return None
    packing = _packing(embeddings, mask.bool())
    saved = 1 - packing.num_tokens / embeddings.shape[1] / len(embeddings)
    return packing if saved >= _LEAST_SAVED else None


@dataclass(frozen=True, slots=True)
class _Packing:
    """Where each token of n pairs goes; first and second of a pair are n rows apart."""

    rows: torch.Tensor
    """(n, packed) of the batch's rows that each packed token comes from."""
    places: torch.Tensor
    """(n, packed) of its places there, which are its positions."""
    visible: torch.Tensor
    """(n, packed, packed): whether a token sees another."""
    origins: torch.Tensor
    """(2 n, longest) of the packed places that each token of the batch comes back from."""

    @property
    def num_tokens(self) -> int:
        """Of the packed batch, padding included."""
        return int(self.rows.numel())

    def inputs(self, embeddings: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the language model is given in place of its own."""
        import torch

        lowest = torch.finfo(embeddings.dtype).min
        mask = torch.zeros_like(self.visible, dtype=embeddings.dtype)
        return {
            "inputs_embeds": embeddings[self.rows, self.places],
            "attention_mask": mask.masked_fill(~self.visible, lowest)[:, None],
            "position_ids": self.places,
        }

    def unpacked(self, hidden: torch.Tensor) -> torch.Tensor:
        """The batch as it was: (2 n, longest, width) from (n, packed, width)."""
        import torch

        pairs = torch.arange(len(self.rows), device=hidden.device).repeat(2)
        return hidden[pairs[:, None], self.origins]


def _packing(embeddings: torch.Tensor, real: torch.Tensor) -> _Packing:
    """`real` tells tokens from padding, which is on the right."""
    import torch

    num_pairs, longest = len(embeddings) // 2, embeddings.shape[1]
    first, second = embeddings.split(num_pairs)
    equal = (first == second).all(-1) & real[:num_pairs] & real[num_pairs:]
    shared = equal.long().cumprod(1).sum(1).tolist()
    lengths = real.sum(1).tolist()
    sizes = [lengths[i] + lengths[num_pairs + i] - shared[i] for i in range(num_pairs)]
    shape = (num_pairs, max(sizes))
    rows, places = (torch.zeros(shape, dtype=torch.long) for _ in range(2))
    visible = torch.eye(shape[1], dtype=torch.bool).repeat(num_pairs, 1, 1)
    origins = torch.zeros((2 * num_pairs, longest), dtype=torch.long)
    order = torch.ones((shape[1], shape[1]), dtype=torch.bool).tril()
    for i, (common, size) in enumerate(zip(shared, sizes, strict=True)):
        whole, other = lengths[i], lengths[num_pairs + i]
        rows[i], rows[i, whole:size] = i, num_pairs + i
        places[i, :whole] = torch.arange(whole)
        places[i, whole:size] = torch.arange(common, other)
        visible[i, :size, :size] = order[:size, :size]
        visible[i, whole:size, common:whole] = False
        origins[i, :whole] = torch.arange(whole)
        origins[num_pairs + i, :common] = torch.arange(common)
        origins[num_pairs + i, common:other] = torch.arange(whole, size)
    device = embeddings.device
    return _Packing(rows.to(device), places.to(device), visible.to(device), origins.to(device))
