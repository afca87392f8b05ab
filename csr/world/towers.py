"""What the two vision towers share: pixel normalisation, cell labels, the rate schedule."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from csr.world.scenes import COLOURS, POSITIONS, SHAPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from csr.world.scenes import Scene

PIXEL_MEAN = (0.2, 0.2, 0.2)
PIXEL_STD = (0.2, 0.2, 0.2)
"""Of pixel values in [0, 1], per channel: the images are dark."""
NUM_CELL_LOGITS = len(SHAPES) + 1 + len(COLOURS)
"""What is told of a cell: its shape or none, and its colour."""
_IGNORED = -100
_WARM_UP_SHARE = 0.05


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 in, float out, both shape (images, 3, 48, 48)."""
    import torch

    scaled = pixels.to(torch.float32) / 255.0
    return (scaled - PIXEL_MEAN[0]) / PIXEL_STD[0]


def cell_labels(scenes: Sequence[Scene]) -> torch.Tensor:
    """Shape and colour index of each cell: int64, shape (scenes, 9, 2).

    An empty cell has the shape index `len(SHAPES)` and no colour (-100, ignored by the loss).
    """
    import torch

    labels = torch.full((len(scenes), len(POSITIONS), 2), _IGNORED)
    labels[:, :, 0] = len(SHAPES)
    for row, scene in enumerate(scenes):
        for item in scene.objects:
            cell = POSITIONS.index(item.position)
            labels[row, cell, 0] = SHAPES.index(item.name)
            labels[row, cell, 1] = COLOURS.index(item.colour)
    return labels


def cell_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the shapes plus that of the colours, in nats a cell.

    `logits`: (images, 9, NUM_CELL_LOGITS); `labels`: as `cell_labels` returns.
    """
    from torch.nn.functional import cross_entropy

    shape, colour = logits.flatten(0, 1).split((len(SHAPES) + 1, len(COLOURS)), dim=1)
    flat = labels.flatten(0, 1)
    return cross_entropy(shape, flat[:, 0]) + cross_entropy(
        colour, flat[:, 1], ignore_index=_IGNORED
    )


def learning_rate(
    optimiser: torch.optim.Optimizer, peak: float, step: int, total_steps: int
) -> None:
    """Set the rate of `step` (from 0): a linear rise over 5 % of the steps, then a cosine to 0."""
    rise = max(1, round(_WARM_UP_SHARE * total_steps))
    if step < rise:
        factor = (step + 1) / rise
    else:
        factor = (1 + math.cos(math.pi * (step - rise) / max(1, total_steps - rise))) / 2
    for group in optimiser.param_groups:
        group["lr"] = peak * factor
