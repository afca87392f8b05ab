"""Step-wise search by vLLM, against transformers in batches and in the released order of work.

What counts is sampled tokens a CPU second. Every round has prompts whose images no sampler has met.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.engine import tree_settings
from benchmarks.gpu.shapes import Size
from benchmarks.performance.measuring import Arm, Json, compared, in_turns, peak_bytes
from benchmarks.performance.released_order import ReleasedOrder
from benchmarks.performance.settings import DEEP, SIZES, policy_of, prompts_of
from csr.protocols import Sampler
from csr.samplers import transformers, vllm
from csr.search import search
from csr.types import Prompt
from rewards import calibrated
from rewards.settings import Config as RewardConfig

NUM_PROMPTS = {"vllm": 16, "transformers": 2, "released": 1}
"""Of a round. Fewer where each takes longer: what counts is a rate."""
_SCORER = calibrated.build(RewardConfig(calibration="literal", image_weight=0.0))


def measure(work: Path, rounds: int) -> Json:
    """One size after the other."""
    figures = {size.name: _measured(work, size, rounds) for size in (*SIZES, DEEP)}
    return {"by_size": figures, "peak_bytes": peak_bytes(), "num_prompts": NUM_PROMPTS}


def _measured(work: Path, size: Size, rounds: int) -> Json:
    policy = policy_of(work, size)
    fast = vllm.build(
        vllm.Config(kv_cache_gib=1.0, max_context_tokens=size.shape.max_context_tokens)
    )
    batched = transformers.build(transformers.Config())
    released = ReleasedOrder(Path(policy.model_path), size.load.tree)

    def searching(name: str, sampler: Sampler) -> Arm:
        def arm(number: int) -> float:
            return _num_tokens(sampler, _prompts(work, size, name, number), size)

        return arm

    arms: dict[str, Arm] = {
        "vllm": searching("vllm", fast),
        "transformers": searching("transformers", batched),
        "released": lambda number: released.num_tokens(_prompts(work, size, "released", number)),
    }
    try:
        for sampler in (fast, batched):
            sampler.load_policy(policy)
        found = in_turns(arms, rounds)
        hit_rate = fast.stats()["prefix_cache_hit_rate"]
        return compared(found, "vllm") | {"prefix_cache_hit_rate": hit_rate}
    finally:
        fast.close()
        batched.close()


def _prompts(work: Path, size: Size, name: str, number: int) -> list[Prompt]:
    return prompts_of(work, size, f"{size.name}-{name}-{number}", NUM_PROMPTS[name])


def _num_tokens(sampler: Sampler, prompts: Sequence[Prompt], size: Size) -> int:
    trees = search(
        prompts,
        sampler=sampler,
        scorer=_SCORER,
        settings=tree_settings(size.load.tree),
        seed=0,
        policy_name="base",
        origin="benchmark",
        progress=lambda done, total: None,
    )
    return sum(len(node.step.token_ids) for tree in trees for node in tree.nodes)
