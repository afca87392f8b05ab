"""The reward model: a tiny CLIP, trained from nothing on clean sentences.

It never sees the policy's data, its vision tower or the careless captions, so the
two do not share their errors.
"""

from __future__ import annotations

import json
import math
from itertools import product
from typing import TYPE_CHECKING, Any

from pydantic import Field, PositiveFloat, PositiveInt

from csr.config import ComponentConfig
from csr.world.captions import TEMPLATES, Mention, phrase
from csr.world.drawing import CELL, IMAGE_SIZE, draw_all
from csr.world.scenes import (
    COLOURS,
    POSITIONS,
    SHAPES,
    Scene,
    SceneObject,
    SceneSettings,
    sample_scenes,
    seed_of,
)
from csr.world.tokenizer import EOS_ID, PAD_ID, build_tokenizer
from csr.world.towers import (
    NUM_CELL_LOGITS,
    PIXEL_MEAN,
    PIXEL_STD,
    cell_labels,
    cell_loss,
    learning_rate,
    normalise,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from open_clip.model import CLIP
    from transformers import PreTrainedTokenizerFast

    from csr.protocols import Progress

_CONTEXT_LENGTH = 32
"""Tokens; a sentence takes 10 to 12."""
SENTENCES = tuple(
    SceneObject(name=name, colour=colour, position=position)
    for name in SHAPES
    for colour in COLOURS
    for position in POSITIONS
)
"""All 324 things that one sentence can say."""
PHRASES = tuple(
    Mention(name=name, colour=colour, position=position)
    for name in SHAPES
    for colour in (*COLOURS, None)
    for position in (*POSITIONS, None)
)
"""The sentences, and the 96 shorter ones that leave out the colour, the position or both.

Web captions name things more often than they place them. The short ones teach the same here:
a shape that is shown in another place is nearer to the image than one that is not shown."""


class ClipSettings(ComponentConfig):
    """The reward model's size and training."""

    seed: int = 0
    """Decides its data, initialisation and batches; independent of the policy's seed."""
    width: PositiveInt = Field(default=128, multiple_of=32)
    """Of the vision tower; heads are 32 wide."""
    layers: PositiveInt = 1
    """Of the vision tower."""
    text_width: PositiveInt = Field(default=64, multiple_of=32)
    """Of the text tower; heads are 32 wide."""
    text_layers: PositiveInt = 1
    """Of the text tower."""
    embedding_width: PositiveInt = 256
    """Of the space where image and sentence meet."""
    num_scenes: PositiveInt = 6000
    """Images it learns from."""
    warmup_steps: PositiveInt = 400
    """Optimiser steps that teach the vision tower what each cell shows, before any sentence."""
    contrastive_steps: PositiveInt = 800
    """Optimiser steps that teach it which sentences hold."""
    batch_size: PositiveInt = 64
    """Images a step."""
    bank_size: PositiveInt = Field(default=len(PHRASES), le=len(PHRASES))
    """Of the 420 phrases, how many each contrastive step compares an image with."""
    learning_rate: PositiveFloat = 2e-3
    """Peak, for AdamW."""


def train_clip(
    settings: ClipSettings, scenes: SceneSettings, directory: Path, progress: Progress
) -> CLIP:
    """Train and save it under `directory`, where open_clip reads it as `local-dir:`."""
    import torch

    torch.manual_seed(seed_of("clip", settings.seed))
    tokenizer = build_tokenizer(closed=True)
    config = _model_config(settings, len(tokenizer))
    model = _new_model(config)
    data = sample_scenes(f"reward-{settings.seed}", settings.num_scenes, scenes)
    pixels = torch.from_numpy(draw_all(data)).permute(0, 3, 1, 2)
    total = settings.warmup_steps + settings.contrastive_steps
    _warm_up(model, pixels, data, settings, lambda done: progress(done, total))
    _contrast(
        model, pixels, data, settings, lambda done: progress(settings.warmup_steps + done, total)
    )
    _save(model.eval(), config, directory)
    tokenizer.save_pretrained(directory)
    return model


def encode_phrases(
    tokenizer: PreTrainedTokenizerFast, items: Sequence[tuple[SceneObject | Mention, int]]
) -> torch.Tensor:
    """Token ids of (object or phrase, template) pairs, shape (pairs, context)."""
    texts = [phrase(item, template) for item, template in items]
    encoded: torch.Tensor = tokenizer(
        texts, return_tensors="pt", padding="max_length", max_length=_CONTEXT_LENGTH
    ).input_ids
    return encoded


def truth_table(scenes: list[Scene]) -> torch.Tensor:
    """Which of the phrases hold: bool, shape (scenes, 420)."""
    import torch

    index = {phrase: column for column, phrase in enumerate(PHRASES)}
    table = torch.zeros(len(scenes), len(PHRASES), dtype=torch.bool)
    for row, scene in enumerate(scenes):
        for item in scene.objects:
            for colour, position in product((item.colour, None), (item.position, None)):
                mention = Mention(name=item.name, colour=colour, position=position)
                table[row, index[mention]] = True
    return table


def _model_config(settings: ClipSettings, vocabulary_size: int) -> dict[str, Any]:
    return {
        "embed_dim": settings.embedding_width,
        "vision_cfg": {
            "image_size": IMAGE_SIZE,
            "patch_size": CELL,
            "width": settings.width,
            "head_width": 32,
            "layers": settings.layers,
            # A class token learns positions far more slowly than the mean over patches does.
            "pool_type": "avg",
            "final_ln_after_pool": True,
        },
        "text_cfg": {
            "context_length": _CONTEXT_LENGTH,
            "vocab_size": vocabulary_size,
            "width": settings.text_width,
            "heads": settings.text_width // 32,
            "layers": settings.text_layers,
            "pool_type": "eos",
            "eos_id": EOS_ID,
            "pad_id": PAD_ID,
            # Any non-empty name: open_clip reads the tokenizer from the model's own directory.
            "hf_tokenizer_name": "tiny-world",
        },
    }


def _new_model(config: dict[str, Any]) -> CLIP:
    import torch
    from open_clip.model import CLIP

    model = CLIP(**config)
    with torch.no_grad():
        # Which shape is where must survive the pooling: with quiet position embeddings the
        # tower learns positions last, or never.
        model.visual.positional_embedding.normal_(std=2.0)
    return model


def _batches(count: int, batch_size: int, steps: int) -> Any:
    import torch

    for _ in range(steps):
        yield torch.randint(count, (batch_size,))


def _warm_up(
    model: CLIP, pixels: torch.Tensor, data: list[Scene], settings: ClipSettings, progress: Any
) -> None:
    """Teach the vision tower to tell, from the pooled embedding, what each cell shows."""
    import torch

    labels = cell_labels(data)
    head = torch.nn.Linear(settings.embedding_width, len(POSITIONS) * NUM_CELL_LOGITS)
    parameters = [*model.visual.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.01)
    batches = _batches(len(data), settings.batch_size, settings.warmup_steps)
    for step, rows in enumerate(batches):
        learning_rate(optimiser, settings.learning_rate, step, settings.warmup_steps)
        logits = head(model.encode_image(normalise(pixels[rows])))
        loss = cell_loss(logits.view(-1, len(POSITIONS), NUM_CELL_LOGITS), labels[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        progress(step + 1)


def _contrast(
    model: CLIP, pixels: torch.Tensor, data: list[Scene], settings: ClipSettings, progress: Any
) -> None:
    """Contrast each image with a sample of all sentences, and each sentence with the images."""
    import torch

    tokenizer = build_tokenizer(closed=True)
    bank = torch.stack(
        [
            encode_phrases(tokenizer, [(item, template) for item in PHRASES])
            for template in range(len(TEMPLATES))
        ]
    )
    truth = truth_table(data)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=0.01, betas=(0.9, 0.98)
    )
    batches = _batches(len(data), settings.batch_size, settings.contrastive_steps)
    for step, rows in enumerate(batches):
        learning_rate(optimiser, settings.learning_rate, step, settings.contrastive_steps)
        chosen = torch.randperm(len(PHRASES))[: settings.bank_size]
        template = torch.randint(len(TEMPLATES), (len(chosen),))
        image = model.encode_image(normalise(pixels[rows]), normalize=True)
        text = encode_text(model, bank[template, chosen])
        loss = contrastive_loss(model.logit_scale.exp() * image @ text.T, truth[rows][:, chosen])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(50.0))
        progress(step + 1)


def encode_text(model: CLIP, token_ids: torch.Tensor) -> torch.Tensor:
    """`model.encode_text` without the padding that the fixed context adds: the same, faster."""
    import torch
    from open_clip.transformer import text_global_pool

    ids = token_ids[:, : int((token_ids != PAD_ID).sum(dim=1).max())]
    length = ids.shape[1]
    hidden = model.token_embedding(ids) + model.positional_embedding[:length]
    hidden = model.transformer(hidden, attn_mask=model.attn_mask[:length, :length])
    pooled = text_global_pool(model.ln_final(hidden), ids, "eos", eos_token_id=EOS_ID)
    return torch.nn.functional.normalize(pooled @ model.text_projection, dim=-1)


def contrastive_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE with any number of positives, which do not compete with each other.

    `logits` and `truth` (bool) have shape (images, sentences).
    """
    return (_one_way(logits, truth) + _one_way(logits.T, truth.T)) / 2


def _one_way(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    import torch

    false_mass = logits.masked_fill(truth, -math.inf).logsumexp(dim=1, keepdim=True)
    losses: torch.Tensor = torch.nn.functional.softplus(false_mass - logits)[truth]
    return losses.mean()


def _save(model: CLIP, config: dict[str, Any], directory: Path) -> None:
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    preprocess = {
        "mean": list(PIXEL_MEAN),
        "std": list(PIXEL_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (directory / "open_clip_config.json").write_text(json.dumps(content, indent=2) + "\n")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, directory / "open_clip_model.safetensors")
