"""What it costs to have the engine speak as the next policy: new weights, an adapter, a new engine.

An adapter is loaded at once, and then each token pays for it; merged weights are read again, and
then cost nothing. Engines are those of `benchmarks.gpu`, at the size of the widest model here.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.budget import Clock
from benchmarks.gpu.checkpoint import build_policy, models
from benchmarks.gpu.parts import lora, reload
from benchmarks.performance.measuring import Json
from benchmarks.performance.settings import WIDE


def measure(work: Path, rounds: int) -> Json:
    """Seconds of each way, and the speed with an adapter as a share of a plain engine's."""
    load = replace(WIDE.load, rounds=rounds, lora_batch=16, decode_tokens=64, kv_cache_gib=0.5)
    size = replace(WIDE, load=load)
    target = models(work, size, "cpu")
    build_policy(target, size, "cpu")
    bench = Bench(
        size=size,
        device="cpu",
        models=target,
        work=work,
        clock=Clock(math.inf),
        keep=lambda figures: None,
    )
    try:
        reloads, start_seconds = reload.measure(bench), bench.engine().start_seconds
    finally:
        bench.close()
    adapter = lora.measure(bench)
    assert reloads["changed_the_policy"], "other weights say something else"
    assert adapter["load"]["changed_the_policy"], "an adapter says something else"
    speeds = [
        figures["tokens_per_second"]["median"]
        for figures in (adapter["adapter"], reloads["merged"])
    ]
    return {
        "start_seconds": start_seconds,
        "reload_seconds": reloads["seconds"],
        "adapter_seconds": adapter["load"]["seconds"],
        "speed_with_adapter": speeds[0] / speeds[1],
        "batch": load.lora_batch,
    }
