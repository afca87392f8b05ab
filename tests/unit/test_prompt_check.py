"""Prompts that a checkpoint cannot be asked, known by its processor alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from csr import rendering
from csr.records import BadRecordError
from csr.samplers._prompt_check import prompt_check
from csr.types import ImageRef, Prompt, SkipReason
from tests.tiny_models import make_llava, make_qwen2_5_vl, make_smolvlm

pytestmark = pytest.mark.slow

SIZES = ((32, 32), (96, 64), (640, 41))
TEXTS = ("Describe the image.", "What is in the picture, and where? " * 9)


def prompt(text: str) -> Prompt:
    return Prompt(prompt_id="1", text=text, image=ImageRef(uri="/1.png", sha256="0"))


@pytest.mark.parametrize("make", [make_llava, make_qwen2_5_vl, make_smolvlm])
def test_a_prompt_fits_where_one_token_more_fits(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    model = make(tmp_path / "model")
    processor = rendering.load_processor(str(model))
    for size in SIZES:
        for text in TEXTS:
            inputs = rendering.expanded_inputs(processor, [text], [Image.new("RGB", size)])
            num = len(inputs["input_ids"][0])
            prompt_check(model, num + 1)(prompt(text), size)
            with pytest.raises(BadRecordError, match=f"takes {num:,} tokens") as caught:
                prompt_check(model, num)(prompt(text), size)
            assert caught.value.reason is SkipReason.PROMPT_TOO_LONG


def test_the_checkpoints_own_marker_is_an_invalid_record(tmp_path: Path) -> None:
    check = prompt_check(make_qwen2_5_vl(tmp_path / "model"), None)
    check(prompt("What does <image> mean?"), (32, 32))
    with pytest.raises(BadRecordError, match="stands for an image") as caught:
        check(prompt("What does <|image_pad|> mean?"), (32, 32))
    assert caught.value.reason is SkipReason.INVALID_RECORD


def test_without_a_limit_of_its_own_the_checkpoints_positions_decide(tmp_path: Path) -> None:
    model = make_llava(tmp_path / "model")
    long = "circle " * 2100  # the checkpoint has 2048 positions
    with pytest.raises(BadRecordError, match="a context of 2,048"):
        prompt_check(model, None)(prompt(long), (32, 32))
    scaled = shutil.copytree(model, tmp_path / "scaled")
    config = json.loads((model / "config.json").read_text())
    config["text_config"]["rope_parameters"] = {
        "rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0,
    }  # fmt: skip
    (scaled / "config.json").write_text(json.dumps(config))
    prompt_check(scaled, None)(prompt(long), (32, 32))
