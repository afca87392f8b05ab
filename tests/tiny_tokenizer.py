"""A byte-level BPE tokenizer of a few hundred entries, trained on sentences about shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SHAPES = ("circle", "square", "cross", "ring")
COLOURS = ("red", "green", "blue", "white")
PLACES = ("top left", "top right", "bottom left", "bottom right")
_VOCAB_SIZE = 380


def sentences() -> list[str]:
    return [
        f"A {colour} {shape} is at the {place}."
        for colour in COLOURS
        for shape in SHAPES
        for place in PLACES
    ]


def _corpus() -> list[str]:
    prompts = ["Describe the image.", "USER: What is in the picture? ASSISTANT:", "There are 3.5."]
    return sentences() + prompts * 8


def byte_level_tokenizer(
    specials: list[str],
    *,
    eos: str,
    pad: str,
    bos: str | None = None,
    add_bos: bool = False,
    named: Mapping[str, str] | None = None,
    symbols: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """Byte-level BPE: every string round-trips, and the corpus' words are single tokens.

    `named` are those of `specials` that the family's tokenizer has attributes for, such as
    {"image_token": "<IMG_CONTEXT>"}; `symbols` are texts that are one token each.
    """
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    named = dict(named or {})
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCAB_SIZE,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in symbols])
    if add_bos:
        assert bos is not None
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=eos, pad_token=pad, bos_token=bos,
        extra_special_tokens=[t for t in specials if t not in (eos, pad, bos, *named.values())],
        model_specific_special_tokens=named,
        clean_up_tokenization_spaces=False, model_max_length=2048,
    )  # fmt: skip
