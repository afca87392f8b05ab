"""Sizes of models that need not be on this machine: what their published config.json say.

llava-1.5-7b, -13b: llava-hf/llava-1.5-*-hf (Vicuna 1.5, CLIP ViT-L/14 at 336 pixels).
llava-v1.6-mistral-7b: llava-hf/llava-v1.6-mistral-7b-hf (Mistral 7B v0.2, the same tower, up to
four tiles beside the whole image). tiny-world: the policy of `csr.world`, as its settings have it.
"""

from __future__ import annotations

from flows.planning.geometry import Geometry, VisionGeometry

_CLIP_L_336 = VisionGeometry(num_layers=24, width=1024, mlp_width=4096, num_positions=577)
_CLIP_L_336_TILED = VisionGeometry(
    num_layers=24, width=1024, mlp_width=4096, num_positions=577, num_tiles=5
)

KNOWN_MODELS = {
    geometry.name: geometry
    for geometry in (
        Geometry(
            name="llava-1.5-7b",
            num_layers=32,
            width=4096,
            mlp_width=11008,
            num_heads=32,
            num_kv_heads=32,
            head_width=128,
            vocabulary_size=32064,
            dtype="float16",
            image_tokens=576,
            vision=_CLIP_L_336,
        ),
        Geometry(
            name="llava-1.5-13b",
            num_layers=40,
            width=5120,
            mlp_width=13824,
            num_heads=40,
            num_kv_heads=40,
            head_width=128,
            vocabulary_size=32064,
            dtype="float16",
            image_tokens=576,
            vision=_CLIP_L_336,
        ),
        Geometry(
            name="llava-v1.6-mistral-7b",
            num_layers=32,
            width=4096,
            mlp_width=14336,
            num_heads=32,
            num_kv_heads=8,
            head_width=128,
            vocabulary_size=32064,
            dtype="float16",
            image_tokens=2928,
            image_tokens_are_most=True,
            vision=_CLIP_L_336_TILED,
        ),
        Geometry(
            name="tiny-world",
            num_layers=3,
            width=128,
            mlp_width=256,
            num_heads=4,
            num_kv_heads=4,
            head_width=32,
            vocabulary_size=398,
            dtype="float32",
            image_tokens=9,
            vision=VisionGeometry(num_layers=2, width=128, mlp_width=256, num_positions=10),
        ),
    )
}
