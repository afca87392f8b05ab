"""Samples sentence by sentence with vLLM, in this process.

A step is one request: the prompt's token ids with one image placeholder, the response's own
token ids so far, the image, and the image's content hash. Nothing is re-tokenised, and a prefix
that was sampled before comes from the prefix cache.

A token that carries text behind the end (".\\n") stays in the step whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from csr.config import ComponentConfig
from csr.planning import PlannedEngine
from csr.prompts import PromptCheck
from csr.protocols import GenerateSettings, Sampler, StepSettings
from csr.samplers._loading import check_checkpoint
from csr.samplers._prompt_check import prompt_check
from csr.samplers._prompted_sampler import PromptedSampler
from csr.samplers._shared import check_tokens, refuse_markers
from csr.samplers._vllm_engine import (
    check_attention,
    may_attend_both_ways,
    planned_caches,
    require_vllm,
)
from csr.samplers._vllm_policy import Job, ServedPolicy, following, spoken
from csr.samplers._vllm_steps import VllmSteps
from csr.step_streams import StepStream
from csr.types import (
    GeneratedResponse,
    PolicyRef,
    Prompt,
    StepRequest,
)

FOLLOWS_JSON_SCHEMA = True
"""`GenerateSettings.json_schema` is honoured."""


class Config(ComponentConfig):
    """Settings of the vLLM sampler."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of weights and activations; `auto` is the checkpoint's own."""
    max_context_tokens: int | None = Field(default=None, ge=1)
    """Tokens of prompt (image included) and response together; None is the model's own limit."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Fraction of GPU memory for weights and KV cache together. Lower it (0.4) where the trainer
    shares the GPU with a warm engine. Not used on CPU."""
    kv_cache_gib: float | None = Field(default=None, gt=0)
    """GiB of KV cache; None is what gpu_memory_utilization leaves, and 2 GiB on CPU."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share one copy of the model."""
    max_num_seqs: int = Field(default=256, ge=1)
    """Sequences that decode at once."""
    max_batch_requests: int = Field(default=1024, ge=1)
    """Requests handed to the engine at once; bounds the decoded images held in memory."""
    enforce_eager: bool = False
    """Skip compilation and CUDA graphs: starts faster, decodes slower. Always so on CPU."""


def build(config: Config) -> Sampler:
    """The sampler. The engine starts with the first policy that is loaded."""
    return VllmSampler(config)


def check_model(path: Path) -> None:
    """What can be known before the engine starts. ModelError, or EnvironmentFault without vLLM."""
    require_vllm()
    check_checkpoint(path)
    if may_attend_both_ways(path):
        check_attention(path)


def check_prompts(path: Path, config: Config) -> PromptCheck:
    """The test of prompts for the checkpoint in `path`, before any engine starts."""
    return prompt_check(path, config.max_context_tokens)


def planned_engine(config: Config) -> PlannedEngine:
    """One engine, whose prefix cache is on."""
    cache, cpu_cache = planned_caches(config.kv_cache_gib)
    return PlannedEngine(
        dtype=config.dtype,
        num_gpus=config.tensor_parallel_size,
        num_gpus_setting="tensor_parallel_size",
        max_sequences=config.max_num_seqs,
        max_batch_requests=config.max_batch_requests,
        memory_share=config.gpu_memory_utilization,
        cache=cache,
        cpu_cache=cpu_cache,
    )


class VllmSampler(PromptedSampler):
    """Implements `csr.protocols.Sampler`."""

    _policy: ServedPolicy

    def __init__(self, config: Config) -> None:
        self._max_batch_requests = config.max_batch_requests
        self._policy = ServedPolicy(
            kv_cache_gib=config.kv_cache_gib,
            max_batch_requests=config.max_batch_requests,
            dtype=config.dtype,
            max_model_len=config.max_context_tokens,
            gpu_memory_utilization=config.gpu_memory_utilization,
            tensor_parallel_size=config.tensor_parallel_size,
            max_num_seqs=config.max_num_seqs,
            enforce_eager=config.enforce_eager,
        )

    def load_policy(self, policy: PolicyRef) -> None:
        """See `Sampler.load_policy`: starts the engine once, then exchanges weights."""
        self._policy.load(policy)

    def stream_steps(self, settings: StepSettings) -> StepStream:
        """See `Sampler.stream_steps`. Greedy candidates are all equal, and sampled once."""
        return VllmSteps(self._policy, settings, self._max_batch_requests)

    def cache_share(self, prompt: Prompt, num_tokens: int) -> float:
        """See `Sampler.cache_share`."""
        num_all = len(self._policy.expanded_ids(prompt)) + num_tokens
        return num_all / self._policy.num_cache_tokens

    def generate(
        self, requests: Sequence[StepRequest], settings: GenerateSettings
    ) -> list[GeneratedResponse]:
        """See `Sampler.generate`."""
        structured = following(settings.json_schema)
        jobs = []
        for request in requests:
            whole = self._policy.whole_params(request, settings)
            params = self._policy.params(**whole, structured_outputs=structured)
            jobs.append(Job(request.prompt, request.prefix_token_ids, params))
        return [
            self._policy.whole_response(request, spoken(output.outputs[0]))
            for request, (_, output) in zip(requests, self._policy.run(jobs), strict=True)
        ]

    def score(
        self,
        prompts: Sequence[Prompt],
        token_ids: Sequence[Sequence[int]],
        *,
        with_image: bool = True,
    ) -> list[tuple[float, ...]]:
        """See `Sampler.score`. DataError where a response holds an image marker."""
        jobs = []
        for prompt, ids in zip(prompts, token_ids, strict=True):
            refuse_markers(prompt, ids, self._policy.media_ids)
            self._policy.check_room(prompt, len(ids) + 1, with_image=with_image)
            params = self._policy.params(temperature=0.0, max_tokens=1, prompt_logprobs=0)
            jobs.append(Job(prompt, tuple(ids), params, with_image))
        scores = []
        for job, output in self._policy.run(jobs):
            start = len(output.prompt_token_ids) - len(job.response_ids)
            pairs = zip(job.response_ids, output.prompt_logprobs[start:], strict=True)
            values = tuple(row[token_id].logprob for token_id, row in pairs)
            check_tokens(job.response_ids, values, media_ids=())
            scores.append(values)
        return scores

    def close(self) -> None:
        """Stop the engine. A later `load_policy` starts a new one."""
        self._policy.close()
