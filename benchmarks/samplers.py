"""How much faster vLLM searches step-wise than transformers, and what memory the process takes.

    OMP_NUM_THREADS=1 python benchmarks/samplers.py [--prompts 32] [--rounds 3]

Both search the same prompts of the embedded world with the recipe's settings, in turns; every
round has prompts that neither has met. What counts is this process's CPU time, so that other
load on the machine does not. Only the ratio means anything, and only for so tiny a model.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from csr.checkpoints import base_policy
from csr.prompts import load_prompts
from csr.protocols import Sampler
from csr.samplers import transformers, vllm
from csr.search import search
from csr.sources.csr import Config, search_settings
from csr.types import Prompt
from csr.world.build import build_world
from csr.world.settings import Config as WorldConfig
from flows import environment
from flows.worlds import cache_dir
from rewards import calibrated
from rewards.settings import Config as RewardConfig

SETTINGS = search_settings(Config(max_steps=6, max_step_tokens=24, max_response_tokens=96))
SCORER = calibrated.build(RewardConfig(calibration="literal", image_weight=0.0))


def main() -> None:
    """Measure in turns; print each sampler's median and range, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    environment.apply(Path("runs"), offline=True)
    world = build_world(WorldConfig(), cache_dir())
    prompts = load_prompts(world / "data/train.jsonl", world / "data/images").prompts
    policy = base_policy(str(world / "policy"))
    samplers = {
        "vllm": vllm.build(vllm.Config()),
        "transformers": transformers.build(transformers.Config()),
    }
    rates: dict[str, list[float]] = {name: [] for name in samplers}
    for number in range(options.rounds + 1):
        part = prompts[number * options.prompts :][: options.prompts]
        for name, sampler in samplers.items():
            sampler.load_policy(policy)
            rate = _tokens_per_cpu_second(sampler, part)
            if number > 0:  # the first round warms up
                rates[name].append(rate)
    _print(rates)


def _tokens_per_cpu_second(sampler: Sampler, prompts: Sequence[Prompt]) -> float:
    started = time.process_time()
    trees = search(
        prompts,
        sampler=sampler,
        scorer=SCORER,
        settings=SETTINGS,
        seed=0,
        policy_name="base",
        origin="benchmark",
        progress=lambda done, total: None,
    )
    num_tokens = sum(len(node.step.token_ids) for tree in trees for node in tree.nodes)
    return num_tokens / (time.process_time() - started)


def _print(rates: dict[str, list[float]]) -> None:
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"{name}: {middle:.0f} tokens/CPU-s ({min(values):.0f} to {max(values):.0f})")
    ratio = statistics.median(rates["vllm"]) / statistics.median(rates["transformers"])
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"vLLM is {ratio:.2f} times as fast; peak memory of the process {peak_gib:.1f} GiB")


if __name__ == "__main__":
    main()
