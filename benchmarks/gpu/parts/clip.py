"""The similarity: images and sentences a second, in batches and one by one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.checkpoint import build_clip
from benchmarks.gpu.record import Json
from benchmarks.gpu.timing import ratio, seconds, spread
from rewards.similarity._open_clip_files import load_open_clip
from rewards.similarity.clip import ClipSimilarity, Config

_PRECISION: Literal["fp32"] = "fp32"
"""The similarity's default."""


def measure(bench: Bench) -> Json:
    """`images` and `texts` pass through the project's similarity; `towers` alone are beside."""
    load = bench.size.load
    build_clip(bench.models, bench.size, bench.device)
    model = f"local-dir:{bench.models.clip}"
    network, preprocess, tokenizer = load_open_clip(model, None, bench.device, _PRECISION)

    def similarity(image_batch: int, text_batch: int) -> ClipSimilarity:
        config = Config(
            model=model,
            device=bench.device,
            precision=_PRECISION,
            image_batch_size=image_batch,
            text_batch_size=text_batch,
        )
        return ClipSimilarity(config, network, preprocess, tokenizer, bench.device, _PRECISION)

    defaults = Config(model=model)
    together = similarity(load.clip_image_batch, defaults.text_batch_size)
    figures: Json = {
        "precision": _PRECISION,
        "image_batch": load.clip_image_batch,
        "text_batch": defaults.text_batch_size,
    }
    figures |= _compared(bench, together, similarity(1, 1))
    bench.keep(figures)
    return figures | {"towers": _towers(bench, network)}


def _compared(bench: Bench, together: ClipSimilarity, single: ClipSimilarity) -> Json:
    load = bench.size.load
    by = {"batched": together, "single": single}
    # New ones each time: nothing is found in a cache.
    unseen_images = _unseen(bench.inputs.images, load.rounds, load.clip_images, load.clip_single)
    unseen_texts = _unseen(bench.inputs.texts, load.rounds, load.clip_texts, load.clip_single)

    def images(way: str) -> int:
        refs = next(unseen_images[way])
        by[way].image_text(refs, ["a thing"] * len(refs))
        return len(refs)

    def texts(way: str) -> int:
        said = next(unseen_texts[way])
        half = len(said) // 2
        by[way].text_text(said[:half], said[half:])
        return len(said)

    figures: Json = {}
    for what, arm in (("images", images), ("texts", texts)):
        arms = {way: functools.partial(arm, way) for way in by}
        runs = bench.in_turns(arms, f"CLIP {what}")
        rates = {name: [run.result / run.seconds for run in found] for name, found in runs.items()}
        figures[what] = {
            **{f"{name}_per_second": spread(found) for name, found in rates.items()},
            "batched_over_single": ratio(rates["batched"], rates["single"]),
        }
    return figures


def _unseen(
    make: Callable[[str, int], list[Any]], rounds: int, batched: int, single: int
) -> dict[str, Iterator[list[Any]]]:
    """Inputs for the warm-up and each round, by way."""
    return {
        way: iter([make(f"clip-{way}-{index}", number) for index in range(rounds + 1)])
        for way, number in (("batched", batched), ("single", single))
    }


def _towers(bench: Bench, network: Any) -> Json:
    """Without files, decoding and tokenising: what the device could do."""
    import torch

    load = bench.size.load
    side = network.visual.image_size
    side = side[0] if isinstance(side, tuple) else side
    pixels = torch.randn(load.clip_images, 3, side, side, device=bench.device)
    tokens = torch.randint(
        1, network.vocab_size, (load.clip_texts, network.context_length), device=bench.device
    )
    arms = {
        "images": torch.inference_mode()(lambda: network.encode_image(pixels)),
        "texts": torch.inference_mode()(lambda: network.encode_text(tokens)),
    }
    runs = bench.in_turns(arms, "CLIP towers")
    numbers = {"images": load.clip_images, "texts": load.clip_texts}
    return {
        f"{name}_per_second": spread([numbers[name] / each for each in seconds(found)])
        for name, found in runs.items()
    }
