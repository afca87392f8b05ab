"""How good the two models are on validation scenes: what `world.json` reports."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from csr.world.captions import DESCRIBE, Mention, mentions
from csr.world.clip import SENTENCES, encode_phrases
from csr.world.drawing import draw_all
from csr.world.lessons import Encoder
from csr.world.questions import POPE_SPLITS, pope_questions, presence_question
from csr.world.scenes import COLOURS, POSITIONS, SHAPES, Scene, SceneObject, seed_of
from csr.world.tokenizer import CHAT_TEMPLATE, EOS_ID, PAD_ID, build_tokenizer
from csr.world.towers import normalise

if TYPE_CHECKING:
    import torch
    from open_clip.model import CLIP
    from transformers import LlavaForConditionalGeneration

_MAX_CAPTION_TOKENS = 96
_MAX_ANSWER_TOKENS = 4
_NUM_SAMPLES = 5


def measure_clip(model: CLIP, scenes: Sequence[Scene]) -> dict[str, float]:
    """For each kind of false sentence: how often it scores below a true one.

    `auc_<kind>` over all images, `pair_accuracy_<kind>` within each image.
    """
    import torch

    tokenizer = build_tokenizer(closed=True)
    with torch.no_grad():
        text = model.encode_text(
            encode_phrases(tokenizer, [(item, 0) for item in SENTENCES]), normalize=True
        )
        similarity = model.encode_image(_pixels(scenes), normalize=True) @ text.T
    index = {item: column for column, item in enumerate(SENTENCES)}
    quality = {}
    for kind in ("shape", "colour", "position", "absent"):
        rng = random.Random(seed_of("measure", kind))
        pairs = [_true_and_false(scene, kind, rng) for scene in scenes]
        rows = torch.arange(len(scenes))
        true = similarity[rows, [index[item] for item, _ in pairs]]
        false = similarity[rows, [index[item] for _, item in pairs]]
        quality[f"auc_{kind}"] = float((true[:, None] > false[None, :]).double().mean())
        quality[f"pair_accuracy_{kind}"] = float((true > false).double().mean())
    return quality


def measure_policy(
    model: LlavaForConditionalGeneration, scenes: Sequence[Scene]
) -> dict[str, float]:
    """Greedy captions against the truth, POPE accuracy, and how varied samples are."""
    captions = _respond(model, scenes, [DESCRIBE] * len(scenes), _MAX_CAPTION_TOKENS)
    quality = caption_quality(scenes, captions)
    for split in POPE_SPLITS:
        questions = pope_questions(scenes, split)
        answers = _respond(
            model,
            [question.scene for question in questions],
            [presence_question(question.name) for question in questions],
            _MAX_ANSWER_TOKENS,
        )
        right = [
            answer.strip().lower().startswith(question.label)
            for question, answer in zip(questions, answers, strict=True)
        ]
        quality[f"pope_accuracy_{split}"] = sum(right) / len(right)
    return quality | _sample_quality(model, scenes[: len(scenes) // 4])


def caption_quality(scenes: Sequence[Scene], captions: Sequence[str]) -> dict[str, float]:
    """CHAIR, recall, length, and how often a shown shape's colour and position are right."""
    told = [mentions(text) for text in captions]
    false = [
        [mention for mention in row if mention.name not in scene.names]
        for scene, row in zip(scenes, told, strict=True)
    ]
    true = [
        (mention, item)
        for scene, row in zip(scenes, told, strict=True)
        for mention in row
        for item in scene.objects
        if item.name == mention.name
    ]
    recalled = sum(
        len(set(scene.names) & {mention.name for mention in row})
        for scene, row in zip(scenes, told, strict=True)
    )
    num_mentions = max(1, sum(map(len, told)))
    colour_right = sum(mention.colour == item.colour for mention, item in true)
    position_right = sum(mention.position == item.position for mention, item in true)
    return {
        "chair_s": sum(map(bool, false)) / len(scenes),
        "chair_i": sum(map(len, false)) / num_mentions,
        "recall": recalled / sum(len(scene.objects) for scene in scenes),
        "mean_response_sentences": sum(text.count(".") for text in captions) / len(scenes),
        "colour_accuracy": colour_right / max(1, len(true)),
        "position_accuracy": position_right / max(1, len(true)),
        "fully_right": sum(
            mention == Mention(name=item.name, colour=item.colour, position=item.position)
            for mention, item in true
        )
        / num_mentions,
        "repeated": sum(len(row) - len({mention.name for mention in row}) for row in told)
        / num_mentions,
    }


def _sample_quality(
    model: LlavaForConditionalGeneration, scenes: Sequence[Scene]
) -> dict[str, float]:
    """Five captions for each scene at temperature 1."""
    import torch

    torch.manual_seed(seed_of("measure", "samples"))
    repeated = [scene for scene in scenes for _ in range(_NUM_SAMPLES)]
    texts = _respond(model, repeated, [DESCRIBE] * len(repeated), _MAX_CAPTION_TOKENS, sample=True)
    invented = [
        any(mention.name not in scene.names for mention in mentions(text))
        for scene, text in zip(repeated, texts, strict=True)
    ]
    rows = [invented[start : start + _NUM_SAMPLES] for start in range(0, len(texts), _NUM_SAMPLES)]
    quality = caption_quality(repeated, texts)
    return {
        "sampled_chair_s": quality["chair_s"],
        "sampled_recall": quality["recall"],
        "sampled_fully_right": quality["fully_right"],
        "sampled_both_kinds": sum(any(row) and not all(row) for row in rows) / max(1, len(rows)),
    }


def _respond(
    model: LlavaForConditionalGeneration,
    scenes: Sequence[Scene],
    prompts: Sequence[str],
    max_tokens: int,
    *,
    sample: bool = False,
) -> list[str]:
    """One response for each (scene, prompt). All prompts must be of one length in tokens."""
    import torch

    tokenizer = build_tokenizer(closed=False)
    tokenizer.chat_template = CHAT_TEMPLATE
    encode = Encoder(tokenizer)
    ids = torch.tensor([encode.prompt_ids(text) for text in prompts])
    with torch.no_grad():
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=_pixels(scenes),
            max_new_tokens=max_tokens,
            do_sample=sample,
            # Sample from the model itself: by default only its 50 likeliest tokens count.
            **({"top_k": 0} if sample else {}),
            eos_token_id=EOS_ID,
            pad_token_id=PAD_ID,
        )
    texts: list[str] = tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
    return texts


def _pixels(scenes: Sequence[Scene]) -> torch.Tensor:
    import torch

    return normalise(torch.from_numpy(draw_all(scenes)).permute(0, 3, 1, 2))


def _true_and_false(scene: Scene, kind: str, rng: random.Random) -> tuple[SceneObject, SceneObject]:
    """A shown object, and one that is not: it differs in one respect (`absent`: in all)."""
    item = rng.choice(scene.objects)
    name, colour, position = item.name, item.colour, item.position
    if kind in ("shape", "absent"):
        name = rng.choice([other for other in SHAPES if other not in scene.names])
    if kind in ("colour", "absent"):
        colour = rng.choice([other for other in COLOURS if other != item.colour])
    if kind in ("position", "absent"):
        position = rng.choice([other for other in POSITIONS if other != item.position])
    return item, SceneObject(name=name, colour=colour, position=position)
