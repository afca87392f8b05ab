"""What is done to a decoded image on purpose, so that less can be seen in it.

A corruption's name says all of it, kind and numbers: "diffusion_noise:500". The same image under
the same name always becomes the same pixels: what is random is drawn from the image's own hash.

| name | becomes | source |
|---|---|---|
| `blank` | mid-grey everywhere | the content-free image of arXiv:2403.05262 |
| `diffusion_noise:STEP` | noise of a diffusion step, 0 to 999 | POVID, arXiv:2402.11411 |
| `resize:SIDE` | shrunk to SIDE pixels on its shorter side | STIC, arXiv:2405.19716 |
| `colour_jitter:BRIGHTNESS:HUE` | brightness and hue moved by up to these shares | STIC |
| `crop:SHARE` | a part of 1 % to SHARE of its area, enlarged | mDPO, arXiv:2406.11839 |
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from csr.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

_MID_GREY = (128, 128, 128)
_NUM_DIFFUSION_STEPS = 1000
_SMALLEST_CROP_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class _Kind:
    apply: Callable[..., Image.Image]
    """Of the image, a random generator, and the numbers."""
    bounds: tuple[tuple[float, float], ...] = ()
    """Smallest and largest value of each number."""


def corrupted(image: Image.Image, name: str, image_sha256: str) -> Image.Image:
    """The RGB image with the corruption `name`; the digest of its file decides what is random.

    Its size may change; its mode does not. ConfigError where `name` is no corruption, or has
    numbers that cannot be.
    """
    import numpy as np

    kind, numbers = _parsed(name)
    digest = hashlib.sha256(f"{name}\x1f{image_sha256}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return kind.apply(image, generator, *numbers)


def check_corruption(name: str) -> None:
    """ConfigError where `name` is no corruption, or one that leaves any image as it is."""
    _, numbers = _parsed(name)
    if numbers and not any(numbers):
        raise ConfigError(
            f"The corruption {name!r} leaves an image as it is. Give numbers above 0."
        )


def _parsed(name: str) -> tuple[_Kind, list[float]]:
    word, *texts = name.split(":")
    try:
        kind, numbers = _KINDS[word], [float(text) for text in texts]
        fits = len(numbers) == len(kind.bounds) and all(
            low <= number <= high for number, (low, high) in zip(numbers, kind.bounds, strict=True)
        )
    except (KeyError, ValueError):
        fits = False
    if not fits:
        raise ConfigError(f"There is no corruption {name[:60]!r}. Known: {_known()}.")
    return kind, numbers


def _known() -> str:
    def told(bounds: tuple[tuple[float, float], ...]) -> str:
        return "".join(f":{low:g} to {high:g}" for low, high in bounds)

    return ", ".join(f"{word}{told(kind.bounds)}" for word, kind in _KINDS.items())


def _blank(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    return Image.new("RGB", image.size, _MID_GREY)


def diffusion_shares(step: int) -> tuple[float, float]:
    """How much of image and of noise is left after a step: their factors.

    `beta_i = sigmoid(linspace(-6, 6, 1000)_i) * (0.005 - 0.00001) + 0.00001`, as POVID's code has
    it; the factors are the roots of the product of all 1 - beta so far, and of 1 minus that.
    """
    kept = 1.0
    for index in range(step + 1):
        place = -6 + 12 * index / (_NUM_DIFFUSION_STEPS - 1)
        kept *= 1 - (1 / (1 + math.exp(-place)) * (0.5e-2 - 1e-5) + 1e-5)
    return math.sqrt(kept), math.sqrt(1 - kept)


def _diffusion_noise(
    image: Image.Image, generator: np.random.Generator, step: float
) -> Image.Image:
    """On values in [0, 1], cut there afterwards: the released code lets them wrap around."""
    signal, noise = diffusion_shares(int(step))
    values = _values(image)
    return _image(signal * values + noise * generator.standard_normal(values.shape))


def _resize(image: Image.Image, generator: np.random.Generator, side: float) -> Image.Image:
    factor = side / min(image.size)
    width, height = (max(1, round(length * factor)) for length in image.size)
    return image.resize((width, height))


def _colour_jitter(
    image: Image.Image, generator: np.random.Generator, brightness: float, hue: float
) -> Image.Image:
    """Factors drawn as torchvision's ColorJitter draws them; hue is a share of the circle."""
    bright = _image(_values(image) * generator.uniform(1 - brightness, 1 + brightness))
    turn = round(generator.uniform(-hue, hue) * 255)
    h, s, v = bright.convert("HSV").split()
    turned = h.point([(value + turn) % 256 for value in range(256)])
    return Image.merge("HSV", (turned, s, v)).convert("RGB")


def _crop(image: Image.Image, generator: np.random.Generator, share: float) -> Image.Image:
    """Of the image's own proportions, so that nothing is stretched."""
    side = math.sqrt(generator.uniform(_SMALLEST_CROP_SHARE, share))
    width, height = (max(1, round(length * side)) for length in image.size)
    left = int(generator.integers(image.width - width + 1))
    top = int(generator.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height)).resize(image.size)


def _values(image: Image.Image) -> Any:
    """Height x width x 3 numbers in [0, 1]."""
    import numpy as np

    return np.asarray(image, dtype=np.float64) / 255


def _image(values: Any) -> Image.Image:
    """The image of such numbers, those outside cut off."""
    import numpy as np

    return Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8))


_KINDS: dict[str, _Kind] = {
    "blank": _Kind(_blank),
    "diffusion_noise": _Kind(_diffusion_noise, ((0, _NUM_DIFFUSION_STEPS - 1),)),
    "resize": _Kind(_resize, ((1, 4096),)),
    "colour_jitter": _Kind(_colour_jitter, ((0, 1), (0, 0.5))),
    "crop": _Kind(_crop, ((_SMALLEST_CROP_SHARE, 1),)),
}
