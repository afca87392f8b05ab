"""Loads a checkpoint by transformers and refuses one that lacks weights.

Both transformers and vLLM go on with random values where a tensor is missing; vLLM says
nothing when one of several fused tensors is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from csr.errors import ModelError
from csr.rendering import load_processor, prompt_token_ids


def check_checkpoint(path: Path) -> None:
    """ModelError where no sampler could ask this checkpoint about an image.

    Looks at the processor, the chat template, and the weights' names and shapes: seconds, even
    for a large model.
    """
    with _quiet():
        processor = load_processor(str(path))
        prompt_token_ids(processor, "Describe the image.")
        check_complete(str(path))


def check_complete(model_path: str) -> None:
    """ModelError where the checkpoint lacks a weight. Reads names and shapes, no values."""
    load_complete(model_path, device_map="meta")


def load_complete(model_path: str, **options: Any) -> Any:
    """The vision-language model with all of its weights. ModelError says what is wrong."""
    from transformers import AutoModelForImageTextToText

    try:
        with _quiet():
            model, report = AutoModelForImageTextToText.from_pretrained(
                model_path,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # transformers raises a dozen unrelated types here
        raise ModelError(
            f"transformers cannot load {model_path} as a vision-language model: "
            f"{_reason(error)} Check that this release of transformers knows the model by itself "
            "(code from a checkpoint is never run), and that its files are whole."
        ) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelError(
            f"{model_path} lacks {len(missing)} weights of its architecture (first: {missing[0]}); "
            "they would be random. The checkpoint was saved in part or under other names."
        )
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars, and no warnings about what we look at ourselves and report as an error."""
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0][:300] if lines else type(error).__name__
    return text if text.endswith(".") else text + "."
