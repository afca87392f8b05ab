"""The project's own sampler, with what only a measurement asks of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.record import Json
from benchmarks.gpu.shapes import GIB
from benchmarks.gpu.timing import Timed, seconds, spread
from csr.growth import SearchSettings
from csr.protocols import StepSettings
from csr.samplers._vllm_policy import Job
from csr.samplers.vllm import Config, VllmSampler
from csr.search import search
from csr.step_streams import BatchedSteps, StepStream, all_steps
from csr.types import Prompt, ResponseTree
from rewards import calibrated
from rewards.settings import Config as RewardConfig

if TYPE_CHECKING:
    from benchmarks.gpu.bench import Bench
    from benchmarks.gpu.shapes import TreeShape

_BESIDE_GIB = 10.0
"""GiB of a GPU kept free of weights and KV cache: activations, CUDA graphs, the vision tower."""
_STARTING_SHARE = 0.5
"""vLLM refuses to start unless this share of the GPU is free. It decides nothing else here, since
the size of the KV cache is given."""
_SCORER = calibrated.build(RewardConfig(calibration="literal", image_weight=0.0))
"""By likelihood alone: a search then needs no model beside the policy."""


class Engine(VllmSampler):
    """A sampler whose requests can be shaped, and whose prefix cache can be emptied."""

    start_seconds = 0.0
    by_levels = False
    """Whether a search takes all its prompts one level further, then all again."""

    def __init__(self, config: Config, **options: Any) -> None:
        super().__init__(config)
        self._policy._options.update(options)

    def stream_steps(self, settings: StepSettings) -> StepStream:
        """See `Sampler.stream_steps`."""
        stream = super().stream_steps
        if self.by_levels:
            return BatchedSteps(lambda requests: all_steps(stream(settings), requests))
        return stream(settings)

    def cache_share(self, prompt: Prompt, num_tokens: int) -> float:
        """See `Sampler.cache_share`."""
        return 0.0 if self.by_levels else super().cache_share(prompt, num_tokens)

    @property
    def llm(self) -> Any:
        """The `vllm.LLM`."""
        return self._policy._engine

    @property
    def kv_cache_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return self._policy.num_cache_tokens

    def jobs(
        self, prompts: Sequence[Prompt], response: Sequence[int] = (), **params: Any
    ) -> list[Job]:
        """A request for each prompt, with the sampler's bias and log-probabilities by default."""
        return [Job(prompt, tuple(response), self._policy.params(**params)) for prompt in prompts]

    def run(self, jobs: Sequence[Job], lora: Any = None) -> list[Any]:
        """Each job's `vllm.RequestOutput`; one batch."""
        inputs = [self._policy._input(job) for job in jobs]
        params = [job.params for job in jobs]
        return list(self.llm.generate(inputs, params, use_tqdm=False, lora_request=lora))

    def num_prompt_tokens(self, prompt: Prompt, *, with_image: bool = True) -> int:
        """With the image expanded, or without it."""
        return len(self._policy.expanded_ids(prompt, with_image=with_image))

    @contextmanager
    def counting(self) -> Iterator[dict[str, float]]:
        """Prompt tokens of all sequences inside the block: `asked`, and `computed` of them.

        The sampler's own count has one sibling for all of a request's, and that one finds what
        the first has just computed; so it cannot tell a kept cache from a lost one.
        """
        counts: dict[str, float] = {}
        self.llm.llm_engine.log_stats = True
        try:
            before = self._counted()
            yield counts
            after = self._counted()
            counts |= {name: after[name] - before[name] for name in after}
        finally:
            self.llm.llm_engine.log_stats = False

    def _counted(self) -> dict[str, float]:
        metrics = {metric.name: metric for metric in self.llm.get_metrics()}
        # Histograms over finished sequences, siblings each; vLLM 0.20 and 0.32 have both.
        names = {
            "asked": "vllm:request_prompt_tokens",
            "computed": "vllm:request_prefill_kv_computed_tokens",
        }
        return {ours: float(metrics[theirs].sum) for ours, theirs in names.items()}

    def forget(self) -> None:
        """Empty the prefix cache. Images stay encoded, and prepared, as long as there is room."""
        emptied = self.llm.reset_prefix_cache()
        assert emptied, "no request runs between two measurements"


def start(bench: Bench, *, kv_cache_gib: float, max_num_seqs: int, **options: Any) -> Engine:
    """An engine that serves the base policy. `options` are `vllm.LLM`'s."""
    config = Config(
        dtype="auto",
        kv_cache_gib=_fitting_gib(bench, kv_cache_gib),
        max_num_seqs=max_num_seqs,
        gpu_memory_utilization=_STARTING_SHARE,
    )
    # An engine that keeps statistics can be told to pause, which it does but while `counting`:
    # they cost a little for each sequence and step.
    engine = Engine(config, disable_log_stats=False, **options)
    started = time.perf_counter()
    engine.load_policy(bench.models.base)
    engine.start_seconds = time.perf_counter() - started
    engine.llm.llm_engine.log_stats = False
    return engine


def _fitting_gib(bench: Bench, wanted_gib: float) -> float:
    """What is wanted, or what a smaller GPU has left beside the weights."""
    if bench.device == "cpu":
        return wanted_gib
    import torch

    weights = bench.size.shape.weight_bytes(bench.value_bytes)
    free_gib: float = (torch.cuda.mem_get_info()[1] - weights) / GIB - _BESIDE_GIB
    return min(wanted_gib, free_gib)


def num_tokens(outputs: Sequence[Any]) -> int:
    """Sampled in all."""
    return sum(len(each.token_ids) for output in outputs for each in output.outputs)


def batch_jobs(bench: Bench, engine: Engine) -> list[Job]:
    """The requests that adapters and merged weights are compared on."""
    load = bench.size.load
    prompts = bench.inputs.prompts("lora", max(load.lora_batch // load.siblings, 1))
    return engine.jobs(prompts, n=load.siblings, max_tokens=load.decode_tokens + 1, ignore_eos=True)


def speed_figures(runs: Sequence[Timed]) -> Json:
    """Of repetitions whose result is a number of tokens."""
    return {
        "tokens_per_second": spread([run.result / run.seconds for run in runs]),
        "seconds": spread(seconds(runs)),
    }


def answer(bench: Bench, engine: Engine, lora: Any = None) -> tuple[tuple[int, ...], float]:
    """A greedy answer and its log-probability: it tells two policies apart."""
    prompt = bench.inputs.prompts("answer", 1)
    jobs = engine.jobs(prompt, max_tokens=4, temperature=0.0)
    completion = engine.run(jobs, lora)[0].outputs[0]
    return tuple(completion.token_ids), round(completion.cumulative_logprob, 3)


# ---------------------------------------------------------------- search


def grow(
    engine: Engine,
    prompts: Sequence[Prompt],
    shape: TreeShape,
    *,
    seed: int,
    by_levels: bool = True,
    forget_between_levels: bool = False,
) -> list[ResponseTree]:
    """The project's step-wise search: level by level, or as the source CSR runs it."""
    engine.by_levels = by_levels
    try:
        return search(
            prompts,
            sampler=engine,
            scorer=_SCORER,
            settings=tree_settings(shape),
            seed=seed,
            policy_name="base",
            origin="benchmark",
            # By levels the search reports once a level, when no request is under way.
            progress=lambda done, total: engine.forget() if forget_between_levels else None,
        )
    finally:
        engine.by_levels = False


def tree_settings(shape: TreeShape) -> SearchSettings:
    """The default preset's way of sampling, and this shape's limits."""
    steps = StepSettings(
        num_candidates=shape.num_candidates,
        temperature=1.0,
        top_p=0.95,
        max_step_tokens=shape.max_step_tokens,
        max_response_tokens=shape.max_steps * shape.max_step_tokens,
    )
    return SearchSettings(
        steps=steps,
        keep_top=shape.keep_top,
        keep_bottom=shape.keep_bottom,
        prune_by="reward",
        path_score="sum",
        max_steps=shape.max_steps,
        duplicate_retries=0,
    )


def tree_tokens(trees: Sequence[ResponseTree]) -> int:
    """Sampled tokens of all trees."""
    return sum(len(node.step.token_ids) for tree in trees for node in tree.nodes)


def outline(tree: ResponseTree) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """What makes two trees equal: the same tokens at the same nodes."""
    return tuple((node.node_id, node.step.token_ids) for node in tree.nodes)


def measured_search(engine: Engine, grown: Callable[[], Sequence[ResponseTree]]) -> dict[str, Any]:
    """What a search from an empty cache made, and what the cache spared it."""
    engine.forget()
    with engine.counting() as counts:
        trees = grown()
    return {
        "hit_rate": 1 - counts["computed"] / counts["asked"],
        "computed_per_prompt": counts["computed"] / len(trees),
        "num_tokens": tree_tokens(trees),
        "trees": [outline(tree) for tree in trees],
    }


def search_figures(runs: Sequence[Timed], num_prompts: int) -> Json:
    """Repetitions of one kind of search as figures."""
    return {
        "seconds": spread(seconds(runs)),
        "hit_rate": spread([run.result["hit_rate"] for run in runs]),
        "computed_tokens_per_prompt": spread([run.result["computed_per_prompt"] for run in runs]),
        "tokens_per_second": spread([run.result["num_tokens"] / run.seconds for run in runs]),
        "prompts_per_second": spread([num_prompts / run.seconds for run in runs]),
        "tokens_per_prompt": runs[0].result["num_tokens"] / num_prompts,
    }


def equal_share(left: Sequence[Timed], right: Sequence[Timed]) -> float:
    """Of the trees that two kinds of search grew from the same seeds.

    Below 1 where rounding depends on the batch, as bfloat16 on a GPU does: a token whose draw
    was close then differs, and all that follows it.
    """
    equal: list[bool] = [
        tree == other
        for one, two in zip(left, right, strict=True)
        for tree, other in zip(one.result["trees"], two.result["trees"], strict=True)
    ]
    return sum(equal) / len(equal)
