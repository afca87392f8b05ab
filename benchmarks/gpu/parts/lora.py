"""A LoRA adapter served beside its base, and what loading another one costs.

Merged weights are weights like any other, so their speed is that of the plain engine in `reload`.
The engine here answers with an adapter and without one, in turns.
"""

from __future__ import annotations

import time

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.engine import Engine, answer, batch_jobs, num_tokens, speed_figures, start
from benchmarks.gpu.record import Json
from benchmarks.gpu.timing import ratio, seconds, spread

_NUM_UPDATES = 3


def measure(bench: Bench) -> Json:
    """Speed with an adapter and without, and seconds until another adapter can speak."""
    load, rank = bench.size.load, bench.size.shape.lora_rank
    engine = start(
        bench,
        kv_cache_gib=load.kv_cache_gib,
        max_num_seqs=load.lora_batch,
        enable_lora=True,
        max_loras=1,
        max_lora_rank=rank,
    )
    try:
        return {"batch": load.lora_batch, "rank": rank, **_measure(bench, engine)}
    finally:
        engine.close()


def _measure(bench: Bench, engine: Engine) -> Json:
    # Both vLLM 0.20 and 0.32 have LLMEngine.add_lora, which reads the files and fills the slot.
    from vllm.lora.request import LoRARequest

    jobs = batch_jobs(bench, engine)
    taken: list[float] = []
    for number in range(1, _NUM_UPDATES + 1):
        # A name and a number of its own each time: vLLM takes a known one for loaded.
        request = LoRARequest(f"adapter-{number}", number, str(bench.models.adapter))
        started = time.perf_counter()
        loaded = engine.llm.llm_engine.add_lora(request)
        taken.append(time.perf_counter() - started)
        assert loaded, "vLLM says so of each adapter that it serves"
    changed = answer(bench, engine) != answer(bench, engine, request)
    arms = {
        "adapter": lambda: num_tokens(engine.run(jobs, request)),
        "without": lambda: num_tokens(engine.run(jobs)),
    }
    runs = bench.in_turns(arms, "adapter")
    return {
        "engine_start_seconds": engine.start_seconds,
        "adapter": speed_figures(runs["adapter"]),
        "without_adapter": speed_figures(runs["without"]),
        "without_over_adapter": ratio(seconds(runs["adapter"]), seconds(runs["without"])),
        "load": {"seconds": spread(taken), "changed_the_policy": changed},
    }
