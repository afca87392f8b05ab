"""What a model in shards (PyTorch's FSDP 2) needs so that it trains as a whole one does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


def keep_sums_exact(accelerator: Any) -> None:
    """Have shards in 16 bits give what they compute in 32 bits as it is, and reduce in 32 bits.

    accelerate rounds all that leaves the model to the type of its passes. bfloat16 has 8 bits:
    a response's log-probability of -200 nats would be known to the nearest nat.
    """
    import torch

    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    policy = getattr(plugin, "mixed_precision_policy", None)
    if plugin is None or policy is None or plugin.fsdp_version != 2:
        return
    plugin.mixed_precision_policy = dataclasses.replace(
        policy, reduce_dtype=torch.float32, output_dtype=None
    )


def with_trainable(adapter: list[Any], model: Callable[..., Any]) -> Callable[..., Any]:
    """`model`, its `adapter`'s weights trainable in each pass although the adapter is off.

    PEFT freezes an adapter that it switches off. FSDP settles the type of gradients at the first
    pass, by the weights that are trainable then: none would leave them in the type of the pass.
    """

    def forward(**inputs: Any) -> Any:
        for weight in adapter:
            weight.requires_grad_(True)
        return model(**inputs)

    return forward
