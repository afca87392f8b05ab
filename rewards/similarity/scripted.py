"""A deterministic similarity without a model: for tests, and to try a recipe's flow.

Image and text agree as much as a hash of both says; two texts as much as they share words.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from pydantic import Field

from csr.config import ComponentConfig
from csr.protocols import Similarity
from csr.types import ImageRef


class Config(ComponentConfig):
    """Settings of the scripted similarity."""

    lowest: float = Field(default=0.15, ge=-1, le=1)
    """Smallest image-text cosine. CLIP's own lie between about 0.15 and 0.35."""
    highest: float = Field(default=0.35, ge=-1, le=1)
    """Largest image-text cosine."""


def build(config: Config) -> Similarity:
    """The similarity."""
    return ScriptedSimilarity(config)


class ScriptedSimilarity:
    """Implements `csr.protocols.Similarity` in plain Python. Images are named, never opened."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def image_text(self, images: Sequence[ImageRef], texts: Sequence[str]) -> list[float]:
        """See `Similarity.image_text`."""
        low, high = self._config.lowest, self._config.highest
        pairs = zip(images, texts, strict=True)
        return [low + (high - low) * _unit(f"{image.sha256}/{text}") for image, text in pairs]

    def text_text(self, left: Sequence[str], right: Sequence[str]) -> list[float]:
        """Words in both texts over words in either; 1 for equal texts."""
        return [_overlap(one, other) for one, other in zip(left, right, strict=True)]

    def num_truncated(self, texts: Sequence[str]) -> int:
        """None: any length is compared."""
        return 0

    def close(self) -> None:
        """Nothing to free."""


def _unit(text: str) -> float:
    """A number in [0, 1) from a text, always the same."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _overlap(one: str, other: str) -> float:
    left, right = (set(re.findall(r"\w+", text.lower())) for text in (one, other))
    return len(left & right) / len(left | right) if left | right else 1.0
