"""Prompts with images of their own, and pairs to train on."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.shapes import Load
from csr.types import ImageRef, Prompt

_NUM_PHOTOS = 8
_DETAIL = 16
"""Pixels of a photo's side that share a colour cell: a JPEG of usual size comes of it."""
FIRST_WORD_ID = 600
"""Ids from here on are plain words in the tokenizer of `checkpoint.py`: no mark, no special."""


class Inputs:
    """Writes images below one folder. What has another name has another image, always."""

    def __init__(self, folder: Path, load: Load) -> None:
        self._folder = folder
        self._load = load
        self._photos: list[bytes] = []

    def prompts(self, name: str, number: int) -> list[Prompt]:
        """`number` prompts of one text, each with an image that no other has."""
        return [
            Prompt(prompt_id=f"{name}-{index}", text=self._load.prompt, image=ref)
            for index, ref in enumerate(self.images(name, number))
        ]

    def images(self, name: str, number: int) -> list[ImageRef]:
        """Files whose bytes differ, by what stands behind the picture's end.

        Decoding costs what it costs for any photo, and no cache takes two for one.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        photos = self._photos = self._photos or [
            _photo(self._load.photo_size, seed) for seed in range(_NUM_PHOTOS)
        ]
        refs = []
        for index in range(number):
            data = photos[index % _NUM_PHOTOS] + f"{name}-{index}".encode()
            file = self._folder / f"{name}-{index}.jpg"
            file.write_bytes(data)
            refs.append(ImageRef(uri=str(file), sha256=hashlib.sha256(data).hexdigest()))
        return refs

    def texts(self, name: str, number: int) -> list[str]:
        """Sentences of some twenty words that differ from each other."""
        words = self._load.prompt.rstrip(".").split()
        rng = random.Random(name)
        return [f"{name} {i} " + " ".join(rng.choices(words, k=16)) + "." for i in range(number)]


def write_pairs(
    path: Path, prompts: Sequence[Prompt], *, num_tokens: int, vocabulary: int, end_id: int
) -> Path:
    """A table of pairs whose responses are random words; one pair for each prompt."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(0)

    def response() -> list[int]:
        return [rng.randrange(FIRST_WORD_ID, vocabulary) for _ in range(num_tokens - 1)] + [end_id]

    rows = [
        {
            "pair_id": prompt.prompt_id,
            "prompt_text": prompt.text,
            "images": [],
            "image_uri": prompt.image.uri,
            "image_sha256": prompt.image.sha256,
            "chosen_token_ids": response(),
            "rejected_token_ids": response(),
        }
        for prompt in prompts
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def _photo(size: tuple[int, int], seed: int) -> bytes:
    """A JPEG of soft random colours."""
    import numpy as np
    from PIL import Image

    width, height = (max(side // _DETAIL, 2) for side in size)
    cells = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue()
