"""Each image of a DPO batch through the vision tower once, though two responses look at it.

TRL passes the chosen responses and then the rejected ones through the model, each with its image,
so every image stands in a batch twice. Tower and projector are frozen and know nothing of the
response: the second half's features are the first half's.
"""

from __future__ import annotations

from typing import Any

_FEATURES = ("pooler_output", "deepstack_features")
"""What transformers' models read of an encoded batch of images."""


def share_image_features(model: Any) -> None:
    """Have `model` encode the first half of its images alone where the second half repeats it.

    `model` is a vision-language model of transformers; one of another build is left as it is.
    """
    backbone = getattr(model, "model", None)
    encode = getattr(backbone, "get_image_features", None)
    if backbone is None or encode is None:
        return

    def encode_once(*arguments: Any, **named: Any) -> Any:
        if not _repeats((*arguments, *named.values())):
            return encode(*arguments, **named)
        once = encode(
            *map(_first_half, arguments),
            **{name: _first_half(value) for name, value in named.items()},
        )
        for name in _FEATURES:
            if (features := getattr(once, name, None)) is not None:
                setattr(once, name, _twice(features, of_layers=name == "deepstack_features"))
        return once

    backbone.get_image_features = encode_once


def _repeats(values: tuple[Any, ...]) -> bool:
    """Whether the second half of every tensor is the first one again."""
    import torch

    halves = [value.tensor_split(2) for value in values if isinstance(value, torch.Tensor)]
    return bool(halves) and all(one.shape == two.shape and one.equal(two) for one, two in halves)


def _first_half(value: Any) -> Any:
    """Of a tensor; a setting stays as it is."""
    import torch

    return value.tensor_split(2)[0] if isinstance(value, torch.Tensor) else value


def _twice(features: Any, *, of_layers: bool) -> Any:
    """Features of twice as many images: a tensor, one tensor an image, or either for each layer."""
    import torch

    if of_layers:
        return [_twice(layer, of_layers=False) for layer in features]
    if isinstance(features, torch.Tensor):
        return torch.cat([features, features])
    return (*features, *features)
