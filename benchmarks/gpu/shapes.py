"""The sizes that are measured: the model's shape, what a token costs, and how much is asked."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30
_CAUSAL = 0.5
"""Share of the attention matrix that a causal model computes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A LLaVA: CLIP vision tower, two-layer projector, Llama with as many KV heads as heads."""

    image_size: int
    """Side of the tower's input in pixels."""
    patch_size: int
    vision_width: int
    vision_intermediate: int
    vision_layers: int
    vision_heads: int
    width: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int
    max_context_tokens: int
    lora_rank: int

    @property
    def num_image_tokens(self) -> int:
        """Tokens that an image takes in the prompt."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def linear_parameters(self) -> int:
        """Of the language model's layers, which every token passes."""
        return self.layers * (4 * self.width**2 + 3 * self.width * self.intermediate)

    @property
    def head_parameters(self) -> int:
        """Of the output layer, which sampled positions alone pass."""
        return self.vocabulary * self.width

    @property
    def lora_parameters(self) -> int:
        """Of an adapter on all linear layers of the language model."""
        attention = 4 * 2 * self.width
        return self.layers * self.lora_rank * (attention + 3 * (self.width + self.intermediate))

    def weight_bytes(self, value_bytes: int) -> int:
        """What one decoding step reads of the weights, whatever the batch."""
        return (self.linear_parameters + self.head_parameters) * value_bytes

    def kv_bytes_per_token(self, value_bytes: int) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.layers * self.width * value_bytes

    def prefill_flops(self, num_tokens: int) -> float:
        """Operations that read one prompt of `num_tokens` (image tokens included)."""
        products = 2.0 * self.linear_parameters * num_tokens + 2.0 * self.head_parameters
        return products + _CAUSAL * 4 * self.layers * self.width * num_tokens**2

    def image_flops(self) -> float:
        """Operations of the tower, up to the layer before the last, and of the projector."""
        num_tokens, width = self.num_image_tokens + 1, self.vision_width
        weights = 4 * width**2 + 2 * width * self.vision_intermediate
        layer = 2.0 * weights * num_tokens + 4.0 * width * num_tokens**2
        projector = 2.0 * (width * self.width + self.width**2) * self.num_image_tokens
        return (self.vision_layers - 1) * layer + projector


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeShape:
    """How trees grow. No sentence of a random model ends, so every step is cut at its limit."""

    num_candidates: int
    keep_top: int
    keep_bottom: int
    max_steps: int
    max_step_tokens: int

    @property
    def num_open(self) -> int:
        """Nodes of a level, below the first, that are expanded."""
        return min(self.keep_top + self.keep_bottom, self.num_candidates)

    @property
    def num_sampled_steps(self) -> int:
        """Candidates of a whole tree."""
        return self.num_candidates * (1 + (self.max_steps - 1) * self.num_open)

    @property
    def num_sampled_tokens(self) -> int:
        """Of a whole tree."""
        return self.num_sampled_steps * self.max_step_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much each part asks for, so that a GPU is full and a tiny model on a CPU is quick."""

    rounds: int
    """Most repetitions of a comparison; time may end it earlier."""
    prompt: str
    photo_size: tuple[int, int]
    """Width and height in pixels of the images as they are stored."""
    tree: TreeShape
    copy_bytes: int
    matmul_size: int
    kv_cache_gib: float
    """Of the engine that decode, prefill, cache and lora use."""
    max_num_seqs: int
    siblings: int
    """Sequences that share a prompt in decoding, as a node's candidates do."""
    decode_batches: tuple[int, ...]
    decode_tokens: int
    prefill_prompts: int
    cache_prompts: int
    waves_kv_cache_gib: float
    """Too little for all prompts of `waves_prompts`, enough for the trees of one wave."""
    waves_max_num_seqs: int
    waves_prompts: int
    num_waves: int
    lora_batch: int
    clip_images: int
    clip_texts: int
    clip_single: int
    """Images, and texts, that are embedded one by one."""
    clip_image_batch: int
    dpo_batch_sizes: tuple[int, ...]
    """Tried in turn until one fits into memory without gradient checkpointing."""
    dpo_batches: int
    response_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A model and what is asked of it."""

    name: str
    shape: Shape
    load: Load
    clip: str | None
    """open_clip's name of the similarity's architecture; None is one of a few thousand weights."""


_PROMPT = "Describe the image in detail, and say where each of the things is."

LLAVA_7B = Size(
    name="llava-1.5-7b",
    clip="ViT-L-14-336",
    shape=Shape(
        image_size=336, patch_size=14,
        vision_width=1024, vision_intermediate=4096, vision_layers=24, vision_heads=16,
        width=4096, intermediate=11008, layers=32, heads=32,
        vocabulary=32064, max_context_tokens=4096, lora_rank=128,
    ),
    load=Load(
        rounds=3, prompt=_PROMPT, photo_size=(640, 480),
        # 110 steps of 20 tokens: 5 first sentences, then 5 for each of 3 kept ones.
        tree=TreeShape(
            num_candidates=5, keep_top=2, keep_bottom=1, max_steps=8, max_step_tokens=20
        ),
        copy_bytes=4 * GIB, matmul_size=8192,
        kv_cache_gib=40.0, max_num_seqs=320, siblings=5,
        decode_batches=(1, 5, 20, 80, 160, 320), decode_tokens=48,
        prefill_prompts=64, cache_prompts=16,
        # 32,768 tokens: 11 whole trees of 2,821 tokens, while 66 prompts alone have 41,000.
        waves_kv_cache_gib=16.0, waves_max_num_seqs=256, waves_prompts=66, num_waves=6,
        lora_batch=160,
        clip_images=128, clip_texts=1024, clip_single=64, clip_image_batch=16,
        dpo_batch_sizes=(4, 2, 1), dpo_batches=8, response_tokens=160,
    ),
)  # fmt: skip

TINY = Size(
    name="tiny",
    clip=None,
    shape=Shape(
        image_size=56, patch_size=7,
        vision_width=64, vision_intermediate=128, vision_layers=2, vision_heads=2,
        # vLLM's CPU attention takes no head narrower than 32.
        width=64, intermediate=128, layers=2, heads=2,
        vocabulary=640, max_context_tokens=256, lora_rank=8,
    ),
    load=Load(
        rounds=2, prompt=_PROMPT, photo_size=(64, 48),
        tree=TreeShape(
            num_candidates=3, keep_top=1, keep_bottom=1, max_steps=3, max_step_tokens=8
        ),
        copy_bytes=1 << 24, matmul_size=256,
        kv_cache_gib=1 / 16, max_num_seqs=32, siblings=2,
        decode_batches=(1, 4), decode_tokens=16,
        prefill_prompts=4, cache_prompts=3,
        # 32 blocks of 32 tokens, and never so many sequences that one would be put off.
        waves_kv_cache_gib=1 / 1024, waves_max_num_seqs=6, waves_prompts=12, num_waves=4,
        lora_batch=4,
        clip_images=8, clip_texts=16, clip_single=4, clip_image_batch=4,
        dpo_batch_sizes=(2,), dpo_batches=3, response_tokens=24,
    ),
)  # fmt: skip

SIZES = {size.name: size for size in (LLAVA_7B, TINY)}
