"""What a checkpoint needs beside its weights: a processor with a whole vocabulary, an adapter."""

from __future__ import annotations

import itertools
import json
import string
from pathlib import Path

from benchmarks.gpu.shapes import Shape

LORA_MODULES = {
    "self_attn.q_proj": ("width", "width"),
    "self_attn.k_proj": ("width", "width"),
    "self_attn.v_proj": ("width", "width"),
    "self_attn.o_proj": ("width", "width"),
    "mlp.gate_proj": ("width", "intermediate"),
    "mlp.up_proj": ("width", "intermediate"),
    "mlp.down_proj": ("intermediate", "width"),
}
"""Linear layers of a decoder layer -> what they read and write: all that CSR's adapter is on."""
_ADAPTER_STD = 0.01


def save_processor(folder: Path, shape: Shape) -> None:
    """The tiny world's tokenizer and template, with a CLIP image processor of the shape's size.

    The tokenizer is filled up with made-up words, so that each id that a random model samples
    is text. A word ends no sentence; a step then ends at its own token limit, with rare
    exceptions, and the amount of work is known beforehand.
    """
    from transformers import CLIPImageProcessor, LlavaProcessor

    from csr.world.tokenizer import CHAT_TEMPLATE, build_tokenizer

    side = {"height": shape.image_size, "width": shape.image_size}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": shape.image_size}, crop_size=side
        ),
        tokenizer=build_tokenizer(closed=False),
        patch_size=shape.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
    _fill_vocabulary(folder / "tokenizer.json", shape.vocabulary)


def _fill_vocabulary(file: Path, size: int) -> None:
    """Entries without a merge: no text is ever written with them, but each can be read."""
    document = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = document["model"]["vocab"]
    letters = string.ascii_lowercase
    made_up = ("Ġ" + "".join(each) for each in itertools.product("xyz", letters, letters, letters))
    words = (word for word in made_up if word not in vocabulary)
    while len(vocabulary) < size:
        vocabulary[next(words)] = len(vocabulary)
    file.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def save_adapter(folder: Path, shape: Shape, device: str, dtype: str) -> None:
    """A LoRA adapter as PEFT saves it, on every linear layer of the language model.

    Neither of its matrices is zero: an adapter that an engine ignores is then seen.
    """
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator(device).manual_seed(7)

    def drawn(*dimensions: int) -> torch.Tensor:
        value = torch.empty(dimensions, dtype=getattr(torch, dtype), device=device)
        return value.normal_(0.0, _ADAPTER_STD, generator=generator).cpu()

    weights = {}
    for layer, (module, (reads, writes)) in itertools.product(
        range(shape.layers), LORA_MODULES.items()
    ):
        name = f"base_model.model.model.language_model.layers.{layer}.{module}"
        weights[f"{name}.lora_A.weight"] = drawn(shape.lora_rank, getattr(shape, reads))
        weights[f"{name}.lora_B.weight"] = drawn(getattr(shape, writes), shape.lora_rank)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": shape.lora_rank,
        "lora_alpha": 2 * shape.lora_rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(module.split(".")[1] for module in LORA_MODULES),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
