"""The similarity as the search calls it, against a forward pass for every sentence and its image.

The released code (arXiv:2405.14622) scores one sentence at a time: it opens, prepares and encodes
the image, and encodes the sentence, all in batches of one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.checkpoint import build_clip, models
from benchmarks.gpu.inputs import Inputs
from benchmarks.gpu.shapes import Size
from benchmarks.performance.measuring import Json, compared, in_turns, peak_bytes
from benchmarks.performance.settings import TREE, WIDE
from csr.images import load_image
from csr.types import ImageRef
from rewards.similarity._open_clip_files import load_open_clip
from rewards.similarity.clip import ClipSimilarity, Config

NUM_IMAGES = {"batched": 8, "one_by_one": 1}
"""Of a round; each is compared with the sentences of a whole tree."""
_ARCHITECTURES = ("ViT-B-32",)
_SHARE_OF_NEW = 0.6
"""Of a tree's sentences that are not in it twice; the same are asked of both ways."""


def measure(work: Path, rounds: int) -> Json:
    """A few thousand weights, and the smallest CLIP that is in use."""
    sizes = [replace(WIDE, name="clip-tiny")]
    sizes += [replace(WIDE, name=f"clip-{name}", clip=name) for name in _ARCHITECTURES]
    by_size = {size.clip or "tiny": _measured(work, size, rounds) for size in sizes}
    return {"by_size": by_size, "sentences_of_an_image": TREE.num_sampled_steps} | {
        "peak_bytes": peak_bytes()
    }


def _measured(work: Path, size: Size, rounds: int) -> Json:
    target, inputs = models(work, size, "cpu"), Inputs(work / "images", size.load)
    build_clip(target, size, "cpu")
    name = f"local-dir:{target.clip}"
    parts = load_open_clip(name, None, "cpu", "fp32")
    similarity = ClipSimilarity(Config(model=name), *parts, "cpu")

    def batched(number: int) -> float:
        images, texts = _asked(inputs, size, "batched", number)
        # As the search does it: all open nodes of all trees, a level after another.
        per_level = len(images) // TREE.max_steps
        for start in range(0, len(images), per_level):
            level = slice(start, start + per_level)
            similarity.image_text(images[level], texts[level])
        return len(images)

    def one_by_one(number: int) -> float:
        images, texts = _asked(inputs, size, "one_by_one", number)
        for image, text in zip(images, texts, strict=True):
            _cosine(*parts, image, text)
        return len(images)

    found = in_turns({"batched": batched, "one_by_one": one_by_one}, rounds)
    return compared(found, "batched")


def _asked(inputs: Inputs, size: Size, way: str, number: int) -> tuple[list[ImageRef], list[str]]:
    """Pairs of image and sentence; level by level, as many of each image in each."""
    label = f"{size.name}-{way}-{number}"
    images = inputs.images(label, NUM_IMAGES[way])
    num_texts = TREE.num_sampled_steps
    new = inputs.texts(label, int(num_texts * _SHARE_OF_NEW))
    texts = [new[index % len(new)] for index in range(num_texts)]
    pairs = [(image, text) for text in texts for image in images]
    return [image for image, _ in pairs], [text for _, text in pairs]


def _cosine(model: Any, preprocess: Any, tokenizer: Any, image: ImageRef, text: str) -> float:
    import torch

    with torch.inference_mode():
        seen = model.encode_image(preprocess(load_image(image))[None], normalize=True)
        said = model.encode_text(tokenizer([text]), normalize=True)
    return float((seen * said).sum())
