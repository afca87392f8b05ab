"""What the parts measure: two models, how trees grow, and where all of it lies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.gpu.checkpoint import build_policy, models
from benchmarks.gpu.inputs import Inputs
from benchmarks.gpu.shapes import TINY, Shape, Size, TreeShape
from csr.types import PolicyRef, Prompt

TREE = TreeShape(num_candidates=5, keep_top=3, keep_bottom=2, max_steps=6, max_step_tokens=16)
"""The default preset's beams and candidates, at about the tiny world's length of a sentence."""

SMALL = Size(
    name="9-image-tokens",
    clip=None,
    shape=Shape(
        image_size=48, patch_size=16,
        vision_width=128, vision_intermediate=256, vision_layers=2, vision_heads=4,
        width=128, intermediate=384, layers=4, heads=4,
        vocabulary=640, max_context_tokens=512, lora_rank=16,
    ),
    load=replace(TINY.load, tree=TREE, photo_size=(64, 64)),
)  # fmt: skip
"""About the embedded world's policy: a million weights, nine tokens an image."""

WIDE = Size(
    name="576-image-tokens",
    clip=None,
    shape=Shape(
        image_size=336, patch_size=14,
        vision_width=128, vision_intermediate=512, vision_layers=4, vision_heads=4,
        width=256, intermediate=688, layers=4, heads=8,
        vocabulary=640, max_context_tokens=1280, lora_rank=16,
    ),
    load=replace(TINY.load, tree=TREE, photo_size=(640, 480)),
)  # fmt: skip
"""LLaVA-1.5's 576 tokens an image, and about its share of a prompt's reading in the tower."""

DEEP = Size(
    name="576-image-tokens-26M",
    clip=None,
    shape=replace(
        WIDE.shape, vision_width=256, vision_intermediate=1024, width=512, intermediate=1376,
        layers=8,
    ),
    load=replace(WIDE.load, tree=replace(TREE, max_steps=2)),
)  # fmt: skip
"""As `WIDE`, with eight times the weights, so that arithmetic weighs more, as in real models; and
two sentences, since the ways of old take minutes for six."""

SIZES = (SMALL, WIDE)


def policy_of(work: Path, size: Size) -> PolicyRef:
    """The checkpoint, made where it is not there yet; random weights in float32."""
    target = models(work, size, "cpu")
    build_policy(target, size, "cpu")
    return target.base


def prompts_of(work: Path, size: Size, name: str, number: int) -> list[Prompt]:
    """Prompts with an image each that no other name's prompts have."""
    return Inputs(work / "images", size.load).prompts(name, number)
