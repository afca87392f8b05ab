"""What the device can do at best: moving memory, and multiplying matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.record import Json
from benchmarks.gpu.timing import seconds, spread

_REPEATS = 10
"""Calls in one timed run: what starts and ends it then hardly counts."""


def measure(bench: Bench) -> Json:
    """Bytes a second of a large copy, read and written both counted, and FLOP/s of bf16."""
    import torch

    load = bench.size.load
    size = load.matmul_size
    generator = torch.Generator(bench.device).manual_seed(0)

    def drawn(*shape: int) -> Any:
        # Random: zeros multiply faster than anything that a model holds.
        value = torch.empty(shape, dtype=torch.bfloat16, device=bench.device)
        return value.normal_(generator=generator)

    source, left, right = drawn(load.copy_bytes // 2), drawn(size, size), drawn(size, size)
    target, product = torch.empty_like(source), torch.empty_like(left)
    runs = bench.in_turns(
        {
            "copy": _repeated(lambda: target.copy_(source)),
            "matmul": _repeated(lambda: torch.matmul(left, right, out=product)),
        },
        "ceilings",
    )
    copied, flops = 2 * load.copy_bytes * _REPEATS, 2.0 * size**3 * _REPEATS
    return {
        "bytes_per_second": spread([copied / each for each in seconds(runs["copy"])]),
        "flops_per_second": spread([flops / each for each in seconds(runs["matmul"])]),
        "copy_bytes": load.copy_bytes,
        "matmul_size": size,
        "dtype": "bfloat16",
    }


def _repeated(call: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(_REPEATS):
            call()

    return run
