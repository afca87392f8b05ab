"""Waves against levels: the same trees with a KV cache too small for all of them at once.

`stream` is the search as it runs: as many trees as the cache holds, each going on by itself, and
the next begun when one is done. `waves` takes that many prompts level by level to their ends before
it begins the next ones. `levels` takes all prompts one sentence further, then all again: what a
level needs was evicted since the one before.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.engine import (
    Engine,
    equal_share,
    grow,
    measured_search,
    search_figures,
    start,
    tree_settings,
)
from benchmarks.gpu.record import Json
from benchmarks.gpu.shapes import TreeShape
from benchmarks.gpu.timing import ratio, seconds
from csr.types import Prompt, ResponseTree
from csr.waves import in_waves, wave_size


def measure(bench: Bench) -> Json:
    """Seconds, hit rate and results of both, in turns."""
    load = bench.size.load
    engine = start(
        bench, kv_cache_gib=load.waves_kv_cache_gib, max_num_seqs=load.waves_max_num_seqs
    )
    try:
        return _measure(bench, engine)
    finally:
        engine.close()


def _measure(bench: Bench, engine: Engine) -> Json:
    load = bench.size.load
    size = wave_size(load.waves_prompts, load.num_waves)
    prompts = bench.inputs.prompts("waves", load.waves_prompts)
    grow(engine, bench.inputs.prompts("waves-warm-up", size), load.tree, seed=0)
    prompt_tokens = engine.num_prompt_tokens(prompts[0])
    figures: Json = {
        "engine_start_seconds": engine.start_seconds,
        "num_prompts": len(prompts),
        "num_waves": load.num_waves,
        "prompts_per_wave": size,
        "prompts_in_stream": _num_at_once(engine, prompts[0], load.tree),
        "kv_cache_tokens": engine.kv_cache_tokens,
        "wave_tokens": size * (prompt_tokens + load.tree.num_sampled_tokens),
        "all_prompts_tokens": len(prompts) * prompt_tokens,
    }
    bench.keep(figures)
    seeds = itertools.count()

    def arm(num_waves: int, *, by_levels: bool = True) -> dict[str, Any]:
        seed = next(seeds) // len(arms)  # one for all arms of a round
        return measured_search(
            engine, lambda: _grown(engine, prompts, load.tree, num_waves, seed, by_levels)
        )

    arms = {
        "stream": lambda: arm(1, by_levels=False),
        "waves": lambda: arm(load.num_waves),
        "levels": lambda: arm(1),
    }
    runs = bench.in_turns(arms, "waves and levels", warm_up=False)
    return figures | {
        **{name: search_figures(found, len(prompts)) for name, found in runs.items()},
        "equal_trees_share": min(
            equal_share(runs[name], runs["levels"]) for name in ("stream", "waves")
        ),
        "waves_over_stream_seconds": ratio(seconds(runs["waves"]), seconds(runs["stream"])),
        "levels_over_waves_seconds": ratio(seconds(runs["levels"]), seconds(runs["waves"])),
    }


def _num_at_once(engine: Engine, prompt: Prompt, shape: TreeShape) -> int:
    """Trees that the search lets grow at once."""
    num_tokens = tree_settings(shape).max_level_tokens
    return max(int(1 / engine.cache_share(prompt, num_tokens)), 1)


def _grown(
    engine: Engine,
    prompts: Sequence[Prompt],
    shape: TreeShape,
    num_waves: int,
    seed: int,
    by_levels: bool,
) -> list[ResponseTree]:
    """All prompts' trees in so many searches, one after another."""
    waves = in_waves(prompts, num_waves, lambda done, total: None)
    return [
        tree
        for wave, _ in waves
        for tree in grow(engine, wave, shape, seed=seed, by_levels=by_levels)
    ]
