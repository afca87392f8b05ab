"""Small tables of preference pairs for the tests, written as a run writes them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from csr.images import image_ref
from csr.types import FinishReason, PreferencePair, Prompt, ScoredResponse
from storage.rows import pairs_to_table
from storage.tables import shard_path, write_table
from tests.tiny_tokenizer import COLOURS, SHAPES

WORDS = (*COLOURS, *SHAPES, "A", "is", "at", "the", "top", "left", "bottom", "right")
PROMPT = "Describe the image."


def make_pairs(
    folder: Path, processor: Any, *, num_pairs: int = 6, seed: int = 0, prompt: str = PROMPT
) -> list[PreferencePair]:
    """Pairs of random sentences about random images (PNG files under `folder`)."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    return [_pair(folder, processor, rng, f"p{index:03d}", prompt) for index in range(num_pairs)]


def write_pairs(path: Path, pairs: list[PreferencePair], *, embed_images: bool = False) -> Path:
    """One shard of the `pairs` table in the folder `path`, which is returned."""
    path.mkdir(parents=True, exist_ok=True)
    table = pairs_to_table(pairs, iteration=1, policy="base")
    write_table(shard_path(path, 0), with_images(table) if embed_images else table)
    return path


def with_images(table: pa.Table) -> pa.Table:
    """The table with the files' bytes in it, as other tools than ours may write it."""
    place = table.schema.get_field_index("images")
    column = table.schema.field(place)
    images = [
        [{"bytes": Path(each["path"]).read_bytes(), "path": each["path"]} for each in row]
        for row in table["images"].to_pylist()
    ]
    return table.set_column(place, column, pa.array(images, column.type))


def response(processor: Any, response_id: str, text: str, *, ended: bool = True) -> ScoredResponse:
    """A response whose token ids are those of `text`, with EOS where it `ended`."""
    token_ids = list(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
    if ended:
        token_ids.append(processor.tokenizer.eos_token_id)
    return ScoredResponse(
        response_id=response_id,
        prompt_id=response_id.split("/")[0],
        text=text.strip(),
        token_ids=tuple(token_ids),
        num_steps=text.count("."),
        num_tokens=len(token_ids),
        sum_logprob=-float(len(token_ids)),
        reward=0.0,
        breakdown={},
        finish_reason=FinishReason.EOS if ended else FinishReason.LENGTH,
        origin="test",
    )


def _pair(
    folder: Path, processor: Any, rng: random.Random, name: str, prompt: str
) -> PreferencePair:
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (40, 48, 3))
    file = folder / f"{name}.png"
    Image.fromarray(pixels.astype(np.uint8)).save(file)
    sides = [
        response(processor, f"{name}/{side}", " " + " ".join(rng.choices(WORDS, k=length)) + ".")
        for side, length in enumerate((rng.randint(2, 6), rng.randint(3, 9)))
    ]
    return PreferencePair(
        pair_id=f"{name}#0",
        prompt=Prompt(prompt_id=name, text=prompt, image=image_ref(file), dataset="test"),
        chosen=sides[0],
        rejected=sides[1],
        margin=1.0,
        source="test",
    )
