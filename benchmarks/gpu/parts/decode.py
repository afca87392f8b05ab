"""Decoding: sampled tokens a second against the batch, beside what memory bandwidth allows.

A step reads all weights of the language model once, and the keys and values of every sequence.
Each batch is run with one token and with many: the difference is decoding alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.engine import Engine, num_tokens
from benchmarks.gpu.record import Json
from benchmarks.gpu.timing import Timed, seconds, spread
from csr.steps import stop_strings
from csr.types import Prompt

_BARE = {"logprobs": None, "logit_bias": None}
"""The engine's own speed."""
_SAMPLED = {"top_p": 0.95, "seed": 1, "stop": list(stop_strings("sentence"))}
"""What the sampler asks for besides: a seed of its own for each request, stop strings, raw
log-probabilities and a ban on the image marker."""


def measure(bench: Bench) -> Json:
    """Rows by batch size; `bare` is the engine's speed, `sampled` as the sampler asks."""
    load, engine = bench.size.load, bench.engine()
    prompts = bench.inputs.prompts("decode", max(load.decode_batches) // load.siblings or 1)
    engine.run(engine.jobs(prompts, max_tokens=1))  # the prompts are read, and stay cached
    prompt_tokens = engine.num_prompt_tokens(prompts[0])
    figures: Json = {
        "engine_start_seconds": engine.start_seconds,
        "prompt_tokens": prompt_tokens,
        "num_tokens": load.decode_tokens,
        "rows": [],
    }
    for batch in load.decode_batches:
        if figures["rows"] and not bench.clock.allows(0.0, f"batch {batch}"):
            continue
        figures["rows"].append(_row(bench, engine, prompts, batch, prompt_tokens))
        bench.keep(figures)
    return figures


def _row(
    bench: Bench, engine: Engine, prompts: Sequence[Prompt], batch: int, prompt_tokens: int
) -> Json:
    load, shape = bench.size.load, bench.size.shape
    siblings = min(batch, load.siblings)
    asked = prompts[: batch // siblings]

    def arm(how: dict[str, Any], max_tokens: int) -> int:
        jobs = engine.jobs(asked, n=siblings, max_tokens=max_tokens, ignore_eos=True, **how)
        return num_tokens(engine.run(jobs))

    long = load.decode_tokens + 1
    ways: dict[str, dict[str, Any]] = {"bare": _BARE, "sampled": _SAMPLED}
    arms = {
        f"{name}/{length}": functools.partial(arm, how, length)
        for name, how in ways.items()
        for length in (1, long)
    }
    runs = bench.in_turns(arms, f"batch {batch}")
    context = prompt_tokens + 1 + load.decode_tokens / 2
    step_bytes = shape.weight_bytes(bench.value_bytes) + batch * context * shape.kv_bytes_per_token(
        bench.value_bytes
    )
    return {
        "batch": batch,
        "siblings": siblings,
        "bytes_per_step": step_bytes,
        **{
            name: _figures(
                runs[f"{name}/1"], runs[f"{name}/{long}"], step_bytes, load.decode_tokens
            )
            for name in ways
        },
    }


def _figures(
    short: Sequence[Timed], long: Sequence[Timed], step_bytes: float, num_steps: int
) -> Json:
    """Rates with and without what happens once a request.

    The difference of the two runs is None where other load on the machine hides it.
    """
    whole = [run.result / run.seconds for run in long]
    decoding = spread(seconds(long))["median"] - spread(seconds(short))["median"]
    num_decoded = (
        spread([run.result for run in long])["median"]
        - spread([run.result for run in short])["median"]
    )
    found: Json = {
        "tokens_per_second": spread(whole),
        "decode_tokens_per_second": None,
        "step_seconds": None,
        "bytes_per_second": None,
    }
    if decoding > 0:
        found["decode_tokens_per_second"] = num_decoded / decoding
        found["step_seconds"] = decoding / num_steps
        found["bytes_per_second"] = step_bytes * num_steps / decoding
    return found
