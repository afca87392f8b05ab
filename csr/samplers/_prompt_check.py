"""Whether a policy can be asked a prompt: found before the run, not while it samples.

An image becomes as many tokens as its size decides, so one image of each size is expanded, and
each text is tokenised once.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from csr import rendering
from csr.errors import DataError
from csr.prompts import PromptCheck
from csr.records import BadRecordError
from csr.types import Prompt, SkipReason

_ANY_TEXT = "?"


def prompt_check(model: Path, max_context_tokens: int | None) -> PromptCheck:
    """The check of prompts for the checkpoint in directory `model`.

    A context of None is the longest that the checkpoint may have.
    """
    processor = rendering.load_processor(str(model))
    room = max_context_tokens or _longest_context_tokens(model)

    @lru_cache(maxsize=4096)
    def num_tokens(text: str) -> int:
        return len(rendering.prompt_token_ids(processor, text))

    @lru_cache(maxsize=4096)
    def num_image_tokens(size: tuple[int, int]) -> int:
        blank = Image.new("RGB", size)
        inputs = rendering.expanded_inputs(processor, [_ANY_TEXT], [blank])
        return len(inputs["input_ids"][0]) - num_tokens(_ANY_TEXT)

    def check(prompt: Prompt, image_size: tuple[int, int]) -> None:
        try:
            num_text = num_tokens(prompt.text)
        except DataError as error:
            raise BadRecordError(str(error)) from None
        num = num_text + num_image_tokens(image_size)
        if num >= room:
            raise BadRecordError(
                f"with its image it takes {num:,} tokens, which leaves no room in a context of "
                f"{room:,}. Shorten the text, or use a smaller image.",
                SkipReason.PROMPT_TOO_LONG,
            )

    return check


def _longest_context_tokens(model: Path) -> int:
    """No less than either engine allows: scaled positions multiply the checkpoint's number."""
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(str(model), trust_remote_code=False).get_text_config()
    scaling = getattr(config, "rope_parameters", None) or {}
    return int(config.max_position_embeddings * max(1.0, scaling.get("factor") or 1.0))
