"""Tiny random checkpoints, made from configurations without any download.

Each `make_*` writes a complete directory (safetensors weights, tokenizer,
processor, chat template) that transformers' Auto classes and vLLM load by path.
The weights are random, but one coordinate of the residual stream is constant and
favours words, "." and the end of a response, so that sampled text has sentences
and ends.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.tiny_tokenizer import byte_level_tokenizer, sentences

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

IMAGE_SIZE = 32
"""Side of LLaVA's and SmolVLM's input in pixels; both see 16 patches of 8."""

HIDDEN = 64
TEXT = {
    "hidden_size": HIDDEN,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
}
"""head_dim is 32: vLLM's CPU attention refuses 8, 16 and 24."""
_WEIGHT_STD = 0.12
_FAVOUR = {"word": 4.0, ".": 4.3, "eos": 4.1, "other": 1.0}
"""How much of the constant coordinate each class of token writes, or reads, or both when tied."""
_NORMS = tuple(
    f"{name}_layernorm.weight" for name in ("input", "post_attention", "pre_feedforward")
)
"""Those that a block of the language model reads through."""
_CONSTANT_GAIN = 1.0
"""The final norm's weight of that coordinate: scales the favour into logits."""

_LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ ' ' if message['role'] == 'user' else eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
_QWEN_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SMOLVLM_TEMPLATE = (
    "{{ '<|im_start|>' }}{% for message in messages %}{{ message['role'] | capitalize + ':' }}"
    "{% if message['content'] is string %}{{ ' ' + message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<end_of_utterance>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def make_llava(path: Path | str, seed: int = 0) -> Path:
    """LLaVA-1.5 in small: CLIP tower, two-layer projector, Llama. 16 image tokens."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    specials = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    tokenizer = byte_level_tokenizer(specials, eos="</s>", pad="<pad>", bos="<s>", add_bos=True)
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        image_size=IMAGE_SIZE, patch_size=8, projection_dim=64,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**TEXT, **token_ids(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size=side, crop_size=side, do_center_crop=True),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_LLAVA_TEMPLATE,
    )
    return save(path, LlavaForConditionalGeneration, config, processor, seed)


def make_qwen2_5_vl(path: Path | str, seed: int = 0) -> Path:
    """Qwen2.5-VL in small: windowed tower, multimodal rotary positions, tied embeddings."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    vision_tokens = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *vision_tokens]
    tokenizer = byte_level_tokenizer(specials, eos="<|im_end|>", pad="<|endoftext|>")
    ids = dict(zip(specials, tokenizer.convert_tokens_to_ids(specials), strict=True))
    config = Qwen2_5_VLConfig(
        text_config={
            **TEXT,
            **token_ids(tokenizer),
            # The sections share half the head dimension between time, height and width.
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6],
            },
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2,
            "patch_size": 8, "window_size": 32, "out_hidden_size": HIDDEN,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )  # fmt: skip
    pixels = {"patch_size": 8, "size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**pixels),
        chat_template=_QWEN_TEMPLATE,
    )
    return save(path, Qwen2_5_VLForConditionalGeneration, config, processor, seed)


def make_smolvlm(path: Path | str, seed: int = 0) -> Path:
    """SmolVLM in small: SigLIP tower, pixel shuffle, Llama. 4 image tokens between markers.

    Its processor needs the package num2words (for video prompts, not used here).
    """
    from transformers import (
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    markers = ["<image>", "<fake_token_around_image>", "<global-img>", "<video>"]
    specials = ["<|endoftext|>", "<|im_start|>", "<end_of_utterance>", *markers]
    tokenizer = byte_level_tokenizer(specials, eos="<end_of_utterance>", pad="<|endoftext|>")
    config = SmolVLMConfig(
        text_config={"model_type": "llama", **TEXT, **token_ids(tokenizer)},
        vision_config={
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": IMAGE_SIZE, "patch_size": 8,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    edge = {"longest_edge": IMAGE_SIZE}
    video = {"longest_edge": IMAGE_SIZE}
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(
            size=edge, max_image_size=edge, do_image_splitting=False
        ),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(
            size=video,
            max_image_size=video,
            video_sampling={"fps": 1, "max_frames": 2, "video_size": video},
        ),
        image_seq_len=4,
        chat_template=_SMOLVLM_TEMPLATE,
    )
    return save(path, SmolVLMForConditionalGeneration, config, processor, seed)


def make_open_clip(path: Path | str, seed: int = 0) -> Path:
    """A random CLIP that open_clip loads as "local-dir:<path>". 32 pixels, 77 text tokens."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    directory = Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    model_config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2},
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2,
        },
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**model_config)
    preprocess = {
        "mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD),
    }  # fmt: skip
    document = {"model_cfg": model_config, "preprocess_cfg": preprocess}
    (directory / "open_clip_config.json").write_text(json.dumps(document, indent=2))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, directory / "open_clip_model.safetensors")
    return directory


def token_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def save(
    path: Path | str,
    model_class: Any,
    config: Any,
    processor: Any,
    seed: int,
    end: str | None = None,
) -> Path:
    """Write the checkpoint. `end` is the token that ends a response, if it is not the tokenizer's.

    Such an end stands in the generation configuration beside the tokenizer's.
    """
    import torch

    directory, ends = Path(path), [processor.tokenizer.eos_token_id]
    if end is not None:
        ends.append(processor.tokenizer.convert_tokens_to_ids(end))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config).eval()
        _randomise(model, processor.tokenizer, ends[-1])
    model.generation_config.eos_token_id = ends if end is not None else ends[0]
    model.generation_config.bos_token_id = processor.tokenizer.bos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    if config.vision_config.model_type in ("clip_vision_model", "siglip_vision_model"):
        _use_hub_key_names(directory / "model.safetensors")
    return directory


def _randomise(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, end_id: int) -> None:
    """Larger weights than the default, so that image, prompt and prefix change the next token."""
    import torch

    # Gemma's norms multiply by one more than their weight.
    added = 1.0 if model.config.model_type.startswith("gemma") else 0.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0.0, _WEIGHT_STD)
            # Coordinate 0 of the residual stream carries the constant: no block may write it.
            if name.endswith(("o_proj.weight", "down_proj.weight")) and "vision" not in name:
                parameter.mul_(0.4)[0] = 0.0
            if name.endswith(_NORMS) and "vision" not in name:
                parameter.fill_(2.0 - added)
                parameter[0] = -added
        favour = _favour(tokenizer, end_id)
        output = model.get_output_embeddings().weight
        inputs = model.get_input_embeddings().weight
        inputs.normal_(0.0, 0.15)
        output.normal_(0.0, 0.15)
        inputs[:, 0] = _FAVOUR["word"]
        output[:, 0] = favour  # where the two are tied, this column is both
        model.get_decoder().norm.weight[0] = _CONSTANT_GAIN - added


def _favour(tokenizer: PreTrainedTokenizerFast, end_id: int) -> torch.Tensor:
    import torch

    end = tokenizer.convert_ids_to_tokens(end_id)

    words = {"Ġ" + word.strip(".") for word in " ".join(sentences()).split()}
    values = []
    for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer))):
        if token == end:
            values.append(_FAVOUR["eos"])
        elif token == ".":
            values.append(_FAVOUR["."])
        elif token in words:
            values.append(_FAVOUR["word"])
        else:
            values.append(_FAVOUR["other"])
    return torch.tensor(values)


def _use_hub_key_names(file: Path) -> None:
    """Name a CLIP or SigLIP tower's weights as on the hub, which is what vLLM expects."""
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    renamed = {
        name.replace("vision_tower.", "vision_tower.vision_model.")
        if "vision_tower." in name and "vision_tower.vision_model." not in name
        else name: tensor
        for name, tensor in weights.items()
    }
    if renamed.keys() != weights.keys():
        save_file(renamed, file, metadata={"format": "pt"})
