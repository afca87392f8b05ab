"""Sizes of models that need not be on this machine: what their published config.json say.

llava-1.5-7b, -13b: llava-hf/llava-1.5-*-hf (Vicuna 1.5, CLIP ViT-L/14 at 336 pixels).
llava-v1.6-mistral-7b: llava-hf/llava-v1.6-mistral-7b-hf (Mistral 7B v0.2, the same tower, up to
four tiles beside the whole image). tiny-world: the policy of `csr.world`, as its settings have it.
Of the other families an image has as many tokens as its size decides: those of one of 640 x 480,
as COCO's are, by the processor's published settings.
"""

from __future__ import annotations

from flows.planning.geometry import Geometry, VisionGeometry

_CLIP_L_336 = VisionGeometry(num_layers=24, width=1024, mlp_width=4096, num_positions=577)
_CLIP_L_336_TILED = VisionGeometry(
    num_layers=24, width=1024, mlp_width=4096, num_positions=577, num_tiles=5
)

_SIGLIP_384 = VisionGeometry(
    num_layers=26, width=1152, mlp_width=4304, num_positions=729, num_tiles=5
)
_SIGLIP_384_SPLIT = VisionGeometry(
    num_layers=27, width=1152, mlp_width=4304, num_positions=729, num_tiles=13
)
_SIGLIP_896 = VisionGeometry(num_layers=27, width=1152, mlp_width=4304, num_positions=4096)
# Its MLP is gated, with 3420 columns: three matrices, where two are counted.
_QWEN2_5_TOWER = VisionGeometry(num_layers=32, width=1280, mlp_width=5130, num_positions=1564)
_QWEN3_TOWER = VisionGeometry(num_layers=27, width=1152, mlp_width=4304, num_positions=1200)
_INTERN_VIT_448 = VisionGeometry(
    num_layers=24, width=1024, mlp_width=4096, num_positions=1025, num_tiles=13
)

HUB_IDS = {
    "llava-hf/llava-1.5-7b-hf": "llava-1.5-7b",
    "llava-hf/llava-1.5-13b-hf": "llava-1.5-13b",
    "llava-hf/llava-v1.6-mistral-7b-hf": "llava-v1.6-mistral-7b",
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": "llava-onevision-qwen2-7b",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2.5-vl-7b",
    "Qwen/Qwen3-VL-8B-Instruct": "qwen3-vl-8b",
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": "smolvlm2-2.2b",
    "OpenGVLab/InternVL3-8B-hf": "internvl3-8b",
    "google/gemma-3-4b-it": "gemma-3-4b",
}
"""Model on the hub -> the name of its sizes below."""

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
            name="llava-onevision-qwen2-7b",
            num_layers=28,
            width=3584,
            mlp_width=18944,
            num_heads=28,
            num_kv_heads=4,
            head_width=128,
            vocabulary_size=152000,
            dtype="float16",
            image_tokens=2929,
            vision=_SIGLIP_384,
        ),
        Geometry(
            name="qwen2.5-vl-7b",
            num_layers=28,
            width=3584,
            mlp_width=18944,
            num_heads=28,
            num_kv_heads=4,
            head_width=128,
            vocabulary_size=152064,
            dtype="bfloat16",
            image_tokens=391,
            vision=_QWEN2_5_TOWER,
        ),
        Geometry(
            name="qwen3-vl-8b",
            num_layers=36,
            width=4096,
            mlp_width=12288,
            num_heads=32,
            num_kv_heads=8,
            head_width=128,
            vocabulary_size=151936,
            dtype="bfloat16",
            image_tokens=300,
            vision=_QWEN3_TOWER,
        ),
        Geometry(
            name="smolvlm2-2.2b",
            num_layers=24,
            width=2048,
            mlp_width=8192,
            num_heads=32,
            num_kv_heads=32,
            head_width=64,
            vocabulary_size=49280,
            dtype="bfloat16",
            image_tokens=1083,
            vision=_SIGLIP_384_SPLIT,
        ),
        Geometry(
            name="internvl3-8b",
            num_layers=28,
            width=3584,
            mlp_width=18944,
            num_heads=28,
            num_kv_heads=4,
            head_width=128,
            vocabulary_size=151674,
            dtype="bfloat16",
            image_tokens=3330,
            vision=_INTERN_VIT_448,
        ),
        Geometry(
            name="gemma-3-4b",
            num_layers=34,
            width=2560,
            mlp_width=10240,
            num_heads=8,
            num_kv_heads=4,
            head_width=256,
            vocabulary_size=262208,
            ties_head=True,
            dtype="bfloat16",
            image_tokens=260,
            vision=_SIGLIP_896,
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
