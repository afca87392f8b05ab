"""Tiny random checkpoints of further model families, made as those in `tests.tiny_models`.

Each has what sets its family apart: tiles and their row marks, splits of an image, features that
enter several layers, attention in both directions within an image, a window, an end of response
that is not the tokenizer's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny_models import IMAGE_SIZE, TEXT, save, token_ids
from tests.tiny_tokenizer import byte_level_tokenizer

_PINPOINTS = [[32, 32], [32, 64], [64, 32], [64, 64]]
"""Heights and widths in pixels that LLaVA-OneVision and LLaVA-NeXT cut an image's tiles from."""
_SIGLIP: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 2, "image_size": IMAGE_SIZE, "patch_size": 8,
}  # fmt: skip
_QWEN_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_CHAT_ML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ 'IMAGE' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""With IMAGE where the family writes its own."""
_ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ '\n' + part['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As llava-hf's: an answer's line has a space before it that the prompt for it has not."""
_MISTRAL_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' }}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'][0]['text'] + '</s>' }}{% endif %}{% endfor %}"
)
_IDEFICS_TEMPLATE = (
    "<|begin_of_text|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + message['role'].replace('assistant', 'model') + '\n' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def make_llava_onevision(path: Path | str, seed: int = 0) -> Path:
    """LLaVA-OneVision in small: SigLIP, tiles, Qwen2. 16 image tokens a tile, and row marks."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
        Qwen2Config,
        SiglipVisionConfig,
    )

    specials = [*_QWEN_TOKENS, "<image>", "<video>"]
    tokenizer = byte_level_tokenizer(specials, eos="<|im_end|>", pad="<|endoftext|>")
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**_SIGLIP, vision_use_head=False),
        text_config=Qwen2Config(**TEXT, **token_ids(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=_PINPOINTS,
        tie_word_embeddings=False,
    )
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=side, image_grid_pinpoints=_PINPOINTS),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=side),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=_ONEVISION_TEMPLATE,
    )
    return save(path, LlavaOnevisionForConditionalGeneration, config, processor, seed)


def make_llava_next(path: Path | str, seed: int = 0) -> Path:
    """LLaVA-NeXT (1.6) in small: CLIP, tiles, Mistral. 16 image tokens a tile, and row marks."""
    from transformers import (
        CLIPVisionConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
        MistralConfig,
    )

    specials = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    tokenizer = byte_level_tokenizer(specials, eos="</s>", pad="<pad>", bos="<s>", add_bos=True)
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**_SIGLIP, projection_dim=64),
        text_config=MistralConfig(**TEXT, **token_ids(tokenizer), sliding_window=None),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=_PINPOINTS,
        tie_word_embeddings=False,
    )
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": IMAGE_SIZE}, crop_size=side, image_grid_pinpoints=_PINPOINTS
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_MISTRAL_TEMPLATE,
    )
    return save(path, LlavaNextForConditionalGeneration, config, processor, seed)


def make_qwen3_vl(path: Path | str, seed: int = 0) -> Path:
    """Qwen3-VL in small: image features enter two layers, interleaved rotary positions."""
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    vision_tokens = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    specials = [*_QWEN_TOKENS, *vision_tokens]
    tokenizer = byte_level_tokenizer(specials, eos="<|im_end|>", pad="<|endoftext|>")
    ids = dict(zip(specials, tokenizer.convert_tokens_to_ids(specials), strict=True))
    sections = {"mrope_section": [6, 5, 5], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config={
            **TEXT,
            **token_ids(tokenizer),
            "head_dim": 32,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **sections},
        },
        vision_config={
            "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2,
            "patch_size": 8, "out_hidden_size": TEXT["hidden_size"],
            "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )  # fmt: skip
    pixels = {"patch_size": 8, "size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}}
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**pixels),
        chat_template=_CHAT_ML.replace("IMAGE", image),
    )
    return save(path, Qwen3VLForConditionalGeneration, config, processor, seed)


def make_idefics3(path: Path | str, seed: int = 0) -> Path:
    """Idefics3 in small: an image is split into up to 4 parts of 4 tokens, beside the whole."""
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
    )

    parts = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    markers = ["<image>", "<fake_token_around_image>", "<global-img>", *parts]
    ends = ["<|end_of_text|>", "<end_of_utterance>"]
    tokenizer = byte_level_tokenizer(
        ["<|begin_of_text|>", *ends, "<|pad|>", *markers],
        eos="<|end_of_text|>", pad="<|pad|>", bos="<|begin_of_text|>", add_bos=True,
    )  # fmt: skip
    config = Idefics3Config(
        text_config={"model_type": "llama", **TEXT, **token_ids(tokenizer)},
        vision_config=_SIGLIP,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=2,
        tie_word_embeddings=False,
    )
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessor(
            size={"longest_edge": 2 * IMAGE_SIZE}, max_image_size={"longest_edge": IMAGE_SIZE}
        ),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=_IDEFICS_TEMPLATE,
    )
    return save(
        path, Idefics3ForConditionalGeneration, config, processor, seed, end="<end_of_utterance>"
    )


def make_internvl(path: Path | str, seed: int = 0) -> Path:
    """InternVL (the form of transformers) in small: up to 4 patches of 4 tokens and the whole."""
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    named = {
        "start_image_token": "<img>", "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>",
    }  # fmt: skip
    specials = [*_QWEN_TOKENS, *named.values()]
    tokenizer = byte_level_tokenizer(specials, eos="<|im_end|>", pad="<|endoftext|>", named=named)
    config = InternVLConfig(
        vision_config=_SIGLIP,
        text_config={"model_type": "qwen2", **TEXT, **token_ids(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=side, max_patches=4),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=side),
        image_seq_length=4,
        chat_template=_CHAT_ML.replace("IMAGE", "<IMG_CONTEXT>\\n"),
    )
    return save(path, InternVLForConditionalGeneration, config, processor, seed)


def make_gemma3(path: Path | str, seed: int = 0) -> Path:
    """Gemma 3 in small: a windowed and a full layer, image tokens that see each other both ways."""
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3ImageProcessor,
        Gemma3Processor,
    )

    named = {
        "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }  # fmt: skip
    turns = ["<start_of_turn>", "<end_of_turn>"]
    tokenizer = byte_level_tokenizer(
        ["<pad>", "<eos>", "<bos>", "<unk>", *turns, *named.values()],
        eos="<eos>", pad="<pad>", bos="<bos>", add_bos=True, named=named,
        symbols=["\n" * length for length in (1, 2, 3, 4)],  # vLLM puts them together by itself
    )  # fmt: skip
    config = Gemma3Config(
        text_config={
            **TEXT, **token_ids(tokenizer), "head_dim": 32, "query_pre_attn_scalar": 32,
            "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"],
        },
        vision_config={**_SIGLIP, "vision_use_head": False},
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
    )  # fmt: skip
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size=side),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=_GEMMA_TEMPLATE,
    )
    return save(path, Gemma3ForConditionalGeneration, config, processor, seed, end="<end_of_turn>")
