"""Samples sentence by sentence with transformers' `generate`: slower than vLLM, runs anywhere.

Every candidate is a row of a left-padded batch. A row draws its own noise (Gumbel's maximum
trick: the largest of log-probability plus noise is an exact sample), so its text depends on its
seed and not on the rows beside it, beyond the rounding of a batched matrix product. A row ends
where `csr.steps` says so in its decoded text; a token that carries text behind the end stays whole.

Each row passes its image through the vision tower, siblings too: simple, and the price of a
backend without a prefix cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from csr import rendering
from csr.checkpoints import resolve_model
from csr.config import ComponentConfig
from csr.errors import ConfigError
from csr.memory import memory_errors
from csr.planning import PlannedEngine
from csr.prompts import PromptCheck
from csr.protocols import GenerateSettings, Sampler, StepRule, StepSettings
from csr.samplers import _transformers_batch as batches
from csr.samplers._contrast import Contrast
from csr.samplers._loading import check_checkpoint
from csr.samplers._prompt_check import prompt_check
from csr.samplers._shared import (
    ImageCache,
    TokenLimits,
    derived_seed,
    eos_token_ids,
    image_identity,
    refuse_markers,
    refuse_schema,
    response_limit,
    step_limits,
)
from csr.step_streams import BatchedSteps, StepStream
from csr.types import (
    GeneratedResponse,
    PolicyRef,
    Prompt,
    StepCandidate,
    StepRequest,
)

_ADVICE = "Lower the sampler's batch_size or max_context_tokens."


class Config(ComponentConfig):
    """Settings of the transformers sampler."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of weights and activations; `auto` is the checkpoint's own."""
    max_context_tokens: int | None = Field(default=None, ge=1)
    """Tokens of prompt (image included) and response together; None is the model's own limit."""
    batch_size: int = Field(default=32, ge=1)
    """Rows (candidates) in one forward pass, each with its content-free views where there is a
    contrast. Lower it where memory is short."""
    device: str = "auto"
    """`auto` is the first GPU where there is one, else the CPU; or a torch device name."""
    contrast: Contrast | None = None
    """Visual debias decoding, e.g. `{content_free: none, alpha: 1, beta: 0.1}`; null samples the
    policy as it is. The log-probabilities that come with a token stay the policy's own."""


def build(config: Config) -> Sampler:
    """The sampler; a policy must be loaded before it speaks."""
    return TransformersSampler(config)


def check_model(path: Path) -> None:
    """What can be known before weights are read. ModelError says what is wrong."""
    check_checkpoint(path)


def check_prompts(path: Path, config: Config) -> PromptCheck:
    """The test of prompts for the checkpoint in `path`, before any engine starts."""
    return prompt_check(path, config.max_context_tokens)


def planned_engine(config: Config) -> PlannedEngine:
    """Batches without a prefix cache; a contrast adds a view for each content-free input."""
    free = 0 if config.contrast is None else 2 if config.contrast.content_free == "both" else 1
    return PlannedEngine(dtype=config.dtype, num_views=1 + free, max_sequences=config.batch_size)


class TransformersSampler:
    """Implements `csr.protocols.Sampler`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._images = ImageCache()
        self._loaded: batches.LoadedPolicy | None = None
        self._sha256 = ""
        self._prompt_lengths: dict[tuple[str, str | None], int] = {}
        self._counts = dict.fromkeys(
            ("num_requests", "num_prompt_tokens", "num_generated_tokens"), 0
        )

    def load_policy(self, policy: PolicyRef) -> None:
        """See `Sampler.load_policy`."""
        if self._loaded is not None and policy.sha256 == self._sha256:
            return
        self.close()
        path = resolve_model(policy.model_path)
        processor = rendering.load_processor(str(path))
        model = batches.load_model(str(path), self._config.dtype, self._config.device)
        self._loaded = batches.LoadedPolicy(
            model=model,
            processor=processor,
            eos_ids=eos_token_ids(path, processor),
            media_ids=rendering.media_token_ids(processor),
            max_context_tokens=_max_context_tokens(model, path, self._config),
            images=self._images,
        )
        self._sha256 = policy.sha256

    def sample_steps(
        self, requests: Sequence[StepRequest], settings: StepSettings
    ) -> list[list[StepCandidate]]:
        """See `Sampler.sample_steps`. Greedy candidates are all equal, and sampled once."""
        repeats = 1
        if settings.diversity == "branch_first_token":
            self._refuse_branching_contrast()
            settings = replace(settings, temperature=0.0, top_p=1.0)
        elif settings.temperature == 0:
            repeats = settings.num_candidates
            settings = replace(settings, num_candidates=1)
        width = settings.num_candidates
        rows = [self._row(request, settings, k) for request in requests for k in range(width)]
        self._grow(rows, settings.temperature, settings.top_p, settings.step_rule)
        self._counts["num_requests"] += len(requests)
        candidates = [_candidate(row) for row in rows]
        return [candidates[i : i + width] * repeats for i in range(0, len(rows), width)]

    def stream_steps(self, settings: StepSettings) -> StepStream:
        """See `Sampler.stream_steps`."""
        return BatchedSteps(lambda requests: self.sample_steps(requests, settings))

    def cache_share(self, prompt: Prompt, num_tokens: int) -> float:
        """See `Sampler.cache_share`: nothing is kept."""
        return 0.0

    def generate(
        self, requests: Sequence[StepRequest], settings: GenerateSettings
    ) -> list[GeneratedResponse]:
        """See `Sampler.generate`."""
        refuse_schema(settings, "transformers")
        rows = []
        for request in requests:
            limit = response_limit(
                request,
                settings.max_response_tokens,
                self._prompt_length(request.prompt),
                self._policy.max_context_tokens,
            )
            seed = derived_seed(request.seed, 0)
            rows.append(batches.Row(request, TokenLimits(limit, limit), seed))
        self._grow(rows, settings.temperature, settings.top_p, None)
        self._counts["num_requests"] += len(requests)
        return [self._response(row) for row in rows]

    def score(
        self,
        prompts: Sequence[Prompt],
        token_ids: Sequence[Sequence[int]],
        *,
        with_image: bool = True,
    ) -> list[tuple[float, ...]]:
        """See `Sampler.score`. DataError where a response holds an image marker."""
        for prompt, ids in zip(prompts, token_ids, strict=True):
            self._check_scorable(prompt, ids, with_image)
        scores: list[tuple[float, ...]] = []
        for start in range(0, len(prompts), self._config.batch_size):
            batch = slice(start, start + self._config.batch_size)
            with memory_errors("scoring", _ADVICE):
                scores += batches.score(
                    self._policy, prompts[batch], token_ids[batch], with_image=with_image
                )
        return scores

    def encode(self, prompt: Prompt, response: str) -> tuple[int, ...]:
        """See `Sampler.encode`."""
        ids = rendering.response_token_ids(self._policy.processor, prompt.text, response)
        return tuple(ids)

    def encode_beginning(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        """See `Sampler.encode_beginning`."""
        return tuple(rendering.beginning_token_ids(self._policy.processor, prompt.text, text))

    def room(self, prompt: Prompt) -> int:
        """See `Sampler.room`."""
        return self._policy.max_context_tokens - self._prompt_length(prompt)

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `Sampler.decode`."""
        return self._policy.decode(token_ids)

    def close(self) -> None:
        """Free the model. A later `load_policy` loads one again."""
        if self._loaded is not None:
            import torch

            self._loaded, self._sha256 = None, ""
            self._prompt_lengths.clear()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def stats(self) -> dict[str, float]:
        """Counts since the sampler was built."""
        return {name: float(value) for name, value in self._counts.items()}

    @property
    def _policy(self) -> batches.LoadedPolicy:
        assert self._loaded is not None, "load_policy comes first, and must have succeeded"
        return self._loaded

    def _prompt_length(self, prompt: Prompt, *, with_image: bool = True) -> int:
        key = (prompt.text, image_identity(prompt.image) if with_image else None)
        if key not in self._prompt_lengths:
            self._prompt_lengths[key] = self._policy.prompt_length(prompt, with_image=with_image)
        return self._prompt_lengths[key]

    def _row(self, request: StepRequest, settings: StepSettings, index: int) -> batches.Row:
        limits = step_limits(
            request,
            settings,
            self._prompt_length(request.prompt),
            self._policy.max_context_tokens,
        )
        branching = settings.diversity == "branch_first_token"
        return batches.Row(
            request,
            limits,
            derived_seed(request.seed, index),
            first_rank=index if branching else 0,
            prefix_text=self.decode(request.prefix_token_ids),
        )

    def _grow(
        self, rows: Sequence[batches.Row], temperature: float, top_p: float, rule: StepRule | None
    ) -> None:
        for start in range(0, len(rows), self._config.batch_size):
            batch = rows[start : start + self._config.batch_size]
            with memory_errors("sampling", _ADVICE):
                self._counts["num_prompt_tokens"] += batches.grow(
                    self._policy,
                    batch,
                    temperature=temperature,
                    top_p=top_p,
                    rule=rule,
                    contrast=self._config.contrast,
                )
        self._counts["num_generated_tokens"] += sum(len(row.token_ids) for row in rows)

    def _refuse_branching_contrast(self) -> None:
        if self._config.contrast is not None:
            raise ConfigError(
                "The sampler has a contrast, which may leave fewer first tokens than "
                "branch_first_token needs. Set the source's diversity to sample, or leave out "
                "contrast."
            )

    def _check_scorable(self, prompt: Prompt, token_ids: Sequence[int], with_image: bool) -> None:
        refuse_markers(prompt, token_ids, self._policy.media_ids)
        total = self._prompt_length(prompt, with_image=with_image) + len(token_ids)
        if total > self._policy.max_context_tokens:
            raise ConfigError(
                f"Prompt {prompt.prompt_id!r} with its response takes {total} tokens, more than "
                f"the context of {self._policy.max_context_tokens}. Raise the sampler's "
                "max_context_tokens, up to what the model allows."
            )

    def _response(self, row: batches.Row) -> GeneratedResponse:
        prefix = row.request.prefix
        before = tuple(value for step in prefix for value in step.token_logprobs)
        all_ids = (*row.request.prefix_token_ids, *row.token_ids)
        assert row.reason is not None
        return GeneratedResponse(
            prompt_id=row.request.prompt.prompt_id,
            text=self.decode(all_ids),
            token_ids=all_ids,
            token_logprobs=(*before, *row.logprobs),
            finish_reason=row.reason,
        )


def _max_context_tokens(model: Any, path: Path, config: Config) -> int:
    limit = int(model.config.get_text_config().max_position_embeddings)
    if config.max_context_tokens is not None and config.max_context_tokens > limit:
        raise ConfigError(
            f"max_context_tokens is {config.max_context_tokens}, but {path} was made for "
            f"{limit} tokens at most. Lower it, or leave it out."
        )
    return config.max_context_tokens or limit


def _candidate(row: batches.Row) -> StepCandidate:
    assert row.reason is not None
    return StepCandidate(
        text=row.text,
        token_ids=tuple(row.token_ids),
        token_logprobs=tuple(row.logprobs),
        finish_reason=row.reason,
    )
