"""The base policy: a tiny LLaVA, trained from nothing in three stages.

Like its large relatives: a vision tower that can see, an alignment stage on true
captions, and an instruction stage on careless ones, which leaves a policy that
sees but often speaks from habit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, PositiveFloat, PositiveInt

from csr.config import ComponentConfig
from csr.world.abilities import Ability
from csr.world.drawing import CELL, IMAGE_SIZE
from csr.world.lessons import (
    NUM_IMAGE_TOKENS,
)
from csr.world.tokenizer import (
    BOS_ID,
    CHAT_TEMPLATE,
    EOS_ID,
    IMAGE_ID,
    PAD_ID,
    build_tokenizer,
)
from csr.world.towers import (
    PIXEL_MEAN,
    PIXEL_STD,
)

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import LlavaForConditionalGeneration


_HEAD_WIDTH = 32
"""The smallest that vLLM's CPU attention accepts."""


class PolicySettings(ComponentConfig):
    """The policy's size and training."""

    vision_width: PositiveInt = Field(default=128, multiple_of=_HEAD_WIDTH)
    """Of the vision tower; heads are 32 wide."""
    vision_layers: PositiveInt = 2
    """Of the vision tower."""
    width: PositiveInt = Field(default=128, multiple_of=_HEAD_WIDTH)
    """Of the language model; heads are 32 wide."""
    layers: PositiveInt = 3
    """Of the language model."""
    abilities: tuple[Ability, ...] = ()
    """What it is taught beside describing and answering (`csr.world.abilities`)."""
    num_scenes: PositiveInt = 6000
    """Images it learns from."""
    vision_steps: PositiveInt = 500
    """Optimiser steps that teach tower and projector what each cell shows. At 200 the tower
    still takes every tenth shape for another, and no later stage can mend that."""
    alignment_steps: PositiveInt = 600
    """Optimiser steps on true captions and answers."""
    instruction_steps: PositiveInt = 200
    """Optimiser steps on careless captions and answers."""
    batch_size: PositiveInt = 24
    """Captions a step, and twice as many questions: they are shorter, and teach to look."""
    learning_rate: PositiveFloat = 3e-3
    """Peak of the vision and alignment stages, for AdamW."""
    instruction_learning_rate: PositiveFloat = 1e-3
    """Peak of the instruction stage, for AdamW."""


def new_policy(settings: PolicySettings, vocabulary_size: int) -> LlavaForConditionalGeneration:
    """The model with random weights."""
    import torch
    from transformers import (
        CLIPVisionConfig,
        GenerationConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    vision = CLIPVisionConfig(
        hidden_size=settings.vision_width,
        intermediate_size=2 * settings.vision_width,
        num_hidden_layers=settings.vision_layers,
        num_attention_heads=settings.vision_width // _HEAD_WIDTH,
        image_size=IMAGE_SIZE,
        patch_size=CELL,
        projection_dim=settings.vision_width,
    )
    ids = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}
    text = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=settings.width,
        intermediate_size=2 * settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.width // _HEAD_WIDTH,
        num_key_value_heads=settings.width // _HEAD_WIDTH,
        max_position_embeddings=2048,
        initializer_range=0.06,
        **ids,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_ID,
        image_seq_length=NUM_IMAGE_TOKENS,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        **ids,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**ids)
    with torch.no_grad():
        model.model.vision_tower.embeddings.position_embedding.weight.normal_(std=1.0)
        words = model.get_input_embeddings().weight.normal_(std=0.1)
        # What is read and what is said start as one space: copying a word is then easy.
        model.lm_head.weight.copy_(words)
    return model


def save_policy(model: LlavaForConditionalGeneration, directory: Path) -> None:
    """Write weights, configuration, processor and chat template under `directory`."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    tokenizer = build_tokenizer(closed=False)
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": IMAGE_SIZE},
            crop_size=side,
            image_mean=list(PIXEL_MEAN),
            image_std=list(PIXEL_STD),
        ),
        tokenizer=tokenizer,
        patch_size=CELL,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    _use_hub_names(directory / "model.safetensors")


def _use_hub_names(file: Path) -> None:
    """Rename the vision tower's weights as published LLaVA checkpoints have them.

    vLLM knows only those names; transformers reads both and keeps what it has read.
    """
    from safetensors.torch import load_file, save_file

    old, new = "vision_tower.", "vision_tower.vision_model."
    weights = load_file(file)
    renamed = {
        name if new in name else name.replace(old, new): value for name, value in weights.items()
    }
    save_file(renamed, file, metadata={"format": "pt"})
