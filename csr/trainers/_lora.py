"""Where a LoRA adapter goes, found by the model's structure."""

from __future__ import annotations

from typing import Any

from csr.errors import ModelError


def language_linear_names(model: Any) -> list[str]:
    """Qualified names of the language model's linear layers, in the model's order.

    Never the LM head, the vision tower or the projector: the tower and the projector
    would not be applied by vLLM, and a trained projector would move the reference
    policy, which is this model with the adapter switched off. ModelError where the
    language model cannot be told apart.
    """
    from torch import nn

    decoder = model.get_decoder()
    prefix = next((name for name, module in model.named_modules() if module is decoder), "")
    if not prefix:
        raise ModelError(
            f"{type(model).__name__} does not say which part of it is the language model "
            "(`get_decoder`), so the adapter cannot be kept off the vision tower. Use a "
            "vision-language model of a family that transformers supports."
        )
    head = model.get_output_embeddings()
    names = [
        f"{prefix}.{name}"
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    ]
    if not names:
        raise ModelError(
            f"The language model of {type(model).__name__} has no linear layer that an adapter "
            "could train (is the checkpoint quantised?). Use an unquantised checkpoint."
        )
    return names
