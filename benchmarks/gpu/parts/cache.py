"""The prefix cache in a step-wise search whose trees all fit into it."""

from __future__ import annotations

import functools
import itertools
from typing import Any

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.engine import equal_share, grow, measured_search, search_figures
from benchmarks.gpu.record import Json
from benchmarks.gpu.timing import ratio, seconds


def measure(bench: Bench) -> Json:
    """`kept`: as it runs. `lost`: the cache is emptied after every level."""
    load, engine = bench.size.load, bench.engine()
    prompts = bench.inputs.prompts("cache", load.cache_prompts)
    seeds = itertools.count()

    def arm(lose: bool) -> dict[str, Any]:
        seed = next(seeds) // 2  # one for both arms of a round
        grown = functools.partial(
            grow, engine, prompts, load.tree, seed=seed, forget_between_levels=lose
        )
        return measured_search(engine, grown)

    grow(engine, bench.inputs.prompts("cache-warm-up", 2), load.tree, seed=0)
    arms = {"kept": lambda: arm(False), "lost": lambda: arm(True)}
    runs = bench.in_turns(arms, "searches", warm_up=False)
    return {
        "num_prompts": len(prompts),
        "prompt_tokens": engine.num_prompt_tokens(prompts[0]),
        "tree_tokens": load.tree.num_sampled_tokens,
        **{name: search_figures(found, len(prompts)) for name, found in runs.items()},
        "equal_trees_share": equal_share(runs["kept"], runs["lost"]),
        "lost_over_kept_seconds": ratio(seconds(runs["lost"]), seconds(runs["kept"])),
    }
