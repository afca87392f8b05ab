"""Draws a scene: 48x48 pixels, one 16x16 cell for each of the nine positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csr.world.scenes import POSITIONS, Scene, SceneObject

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

CELL = 16
"""Side of a cell in pixels; also the vision towers' patch, so a patch holds one whole shape."""
IMAGE_SIZE = 3 * CELL

_RGB = {
    "red": (0.86, 0.15, 0.15),
    "green": (0.15, 0.72, 0.22),
    "blue": (0.20, 0.32, 0.92),
    "yellow": (0.90, 0.82, 0.15),
    "purple": (0.62, 0.22, 0.78),
    "white": (0.92, 0.92, 0.92),
}
_COLOUR_NOISE = 0.06
_PIXEL_NOISE = 0.06
_RADIUS = (5.4, 6.8)
_JITTER = 1.0


def draw(scene: Scene) -> np.ndarray:
    """The image as uint8, shape (48, 48, 3)."""
    import numpy as np

    rng = np.random.default_rng(scene.noise_seed)
    canvas = _background(rng)
    for item in scene.objects:
        _paint(canvas, item, rng)
    canvas += rng.normal(0.0, _PIXEL_NOISE, canvas.shape)
    pixels: np.ndarray = (canvas.clip(0.0, 1.0) * 255.0).round().astype(np.uint8)
    return pixels


def draw_all(scenes: Sequence[Scene]) -> np.ndarray:
    """The images as uint8, shape (scenes, 48, 48, 3)."""
    import numpy as np

    return np.stack([draw(scene) for scene in scenes])


def _background(rng: np.random.Generator) -> np.ndarray:
    """A dark tint with a slight gradient."""
    import numpy as np

    tint = rng.uniform(0.05, 0.25) + rng.uniform(-0.03, 0.03, 3)
    ramp = np.linspace(-0.5, 0.5, IMAGE_SIZE)
    slope_down, slope_right = rng.uniform(-0.08, 0.08, 2)
    shade = slope_down * ramp[:, None] + slope_right * ramp[None, :]
    background: np.ndarray = shade[:, :, None] + tint
    return background


def _paint(canvas: np.ndarray, item: SceneObject, rng: np.random.Generator) -> None:
    import numpy as np

    row, column = divmod(POSITIONS.index(item.position), 3)
    centre_x, centre_y = (CELL - 1) / 2 + rng.uniform(-_JITTER, _JITTER, 2)
    radius = rng.uniform(*_RADIUS)
    axis = np.arange(CELL)
    cover = _cover(item.name, axis[None, :] - centre_x, axis[:, None] - centre_y, radius)
    colour = np.asarray(_RGB[item.colour]) + rng.normal(0.0, _COLOUR_NOISE, 3)
    cell = canvas[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
    cell += cover[:, :, None] * (colour - cell)


def _cover(name: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """How much of each pixel the shape covers, in [0, 1]; `y` points down, shape (16, 16)."""
    cover: np.ndarray = (_depth(name, x, y, radius) + 0.5).clip(0.0, 1.0)
    return cover


def _depth(name: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """How far each pixel lies inside the shape's edge, in pixels; negative outside."""
    import numpy as np

    depth: np.ndarray
    x, distance = abs(x), np.hypot(x, y)
    match name:
        case "circle":
            depth = radius - distance
        case "ring":
            depth = 0.24 * radius - abs(distance - 0.76 * radius)
        case "square":
            depth = 0.86 * radius - np.maximum(x, abs(y))
        case "diamond":
            depth = (1.15 * radius - x - abs(y)) * 0.71
        case "triangle":
            y = y - 0.2 * radius
            depth = 0.6 * radius - np.maximum(y, 0.87 * x - 0.5 * y)
        case "cross":
            long, thin = radius, 0.3 * radius
            depth = np.maximum(
                np.minimum(long - x, thin - abs(y)), np.minimum(thin - x, long - abs(y))
            )
        case _:
            raise AssertionError(name)
    return depth
