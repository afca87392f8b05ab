"""Builds the policy that other parts ask."""

from __future__ import annotations

import time

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.checkpoint import build_policy
from benchmarks.gpu.record import Json


def measure(bench: Bench) -> Json:
    """What was made, and how long it took."""
    started = time.perf_counter()
    made = build_policy(bench.models, bench.size, bench.device)
    shape = bench.size.shape
    return made | {
        "build_seconds": time.perf_counter() - started,
        "linear_parameters": shape.linear_parameters,
        "head_parameters": shape.head_parameters,
        "lora_parameters": shape.lora_parameters,
        "num_image_tokens": shape.num_image_tokens,
    }
