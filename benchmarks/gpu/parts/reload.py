"""Merged weights: the speed at which a plain engine serves them, and what exchanging them costs."""

from __future__ import annotations

import itertools
import time

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.engine import Engine, answer, batch_jobs, num_tokens, speed_figures
from benchmarks.gpu.record import Json
from benchmarks.gpu.timing import spread

_NUM_UPDATES = 3


def measure(bench: Bench) -> Json:
    """`merged` is to be compared with `lora`'s figures; `seconds` until other weights speak."""
    engine = bench.engine()
    jobs = batch_jobs(bench, engine)
    found = bench.in_turns({"merged": lambda: num_tokens(engine.run(jobs))}, "merged weights")
    figures: Json = {
        "batch": bench.size.load.lora_batch,
        "merged": speed_figures(found["merged"]),
    }
    bench.keep(figures)
    return figures | _reloads(bench, engine)


def _reloads(bench: Bench, engine: Engine) -> Json:
    """Other weights of one architecture into the running engine, forth and back."""
    taken: list[float] = []
    said = [answer(bench, engine)]
    for index in range(_NUM_UPDATES):
        if index and not bench.clock.allows(taken[-1], f"{_NUM_UPDATES - index} reloads"):
            break
        started = time.perf_counter()
        engine.load_policy(bench.models.base if index % 2 else bench.models.other)
        taken.append(time.perf_counter() - started)
        said.append(answer(bench, engine))
    engine.load_policy(bench.models.base)
    changed = all(one != other for one, other in itertools.pairwise(said))
    return {"seconds": spread(taken), "changed_the_policy": changed}
