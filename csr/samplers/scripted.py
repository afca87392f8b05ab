"""A deterministic sampler without a model: for tests, and to try a recipe's flow in milliseconds.

It speaks the language of `csr.scripted_language` and behaves as a real policy does:
log-probabilities are those that `score` gives, the same seed gives the same text, greedy
steps joined are the greedy response, and a new policy speaks differently.

Use it from a recipe as sampler "scripted". Images are named, never opened.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from csr.errors import DataError
from csr.prompts import PromptCheck
from csr.protocols import GenerateSettings, Sampler, StepSettings
from csr.records import BadRecordError
from csr.samplers._shared import finish_reason, refuse_schema, response_limit, step_limits
from csr.scripted_language import EOS_ID, Language, LanguageConfig, decode, encode
from csr.step_streams import BatchedSteps, StepStream
from csr.types import (
    FinishReason,
    GeneratedResponse,
    PolicyRef,
    Prompt,
    SkipReason,
    StepCandidate,
    StepRequest,
)

__all__ = [
    "EOS_ID", "Config", "ScriptedSampler", "build", "check_model", "check_prompts", "decode",
    "encode",
]  # fmt: skip


class Config(LanguageConfig):
    """Settings of the scripted sampler."""

    max_context_tokens: int = Field(default=2048, ge=1)
    """Tokens of prompt and response together; a prompt counts one token a word."""
    seconds_per_request: float = Field(default=0.0, ge=0.0)
    """How long a step of one request takes, to see what happens meanwhile."""


def build(config: Config) -> Sampler:
    """The sampler; a policy must be loaded before it speaks."""
    return ScriptedSampler(config)


def check_model(path: Path) -> None:
    """Any directory serves: only the digest of its weights is used."""


def check_prompts(path: Path, config: Config) -> PromptCheck:
    """The test of prompts, which like all samplers' leaves room for a response."""

    def check(prompt: Prompt, image_size: tuple[int, int]) -> None:
        num, room = _num_prompt_tokens(prompt), config.max_context_tokens
        if num >= room:
            raise BadRecordError(
                f"it takes {num:,} tokens, which leaves no room in a context of {room:,}. Shorten "
                "the text.",
                SkipReason.PROMPT_TOO_LONG,
            )

    return check


class ScriptedSampler:
    """Implements `csr.protocols.Sampler` in plain Python."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._language = Language(config)
        self._policy: PolicyRef | None = None
        self._num_requests = 0
        self._num_generated_tokens = 0

    def load_policy(self, policy: PolicyRef) -> None:
        """Speak as this policy: its digest changes every probability. No file is read."""
        self._policy = policy

    def sample_steps(
        self, requests: Sequence[StepRequest], settings: StepSettings
    ) -> list[list[StepCandidate]]:
        """See `Sampler.sample_steps`. Where fewer first tokens exist, branching repeats them."""
        self._num_requests += len(requests)
        time.sleep(self._config.seconds_per_request * len(requests))
        return [
            [self._step(request, settings, index) for index in range(settings.num_candidates)]
            for request in requests
        ]

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
        refuse_schema(settings, "scripted")
        self._num_requests += len(requests)
        return [self._whole(request, settings) for request in requests]

    def score(
        self,
        prompts: Sequence[Prompt],
        token_ids: Sequence[Sequence[int]],
        *,
        with_image: bool = True,
    ) -> list[tuple[float, ...]]:
        """See `Sampler.score`. DataError where a response is not in the language."""
        return [
            self._language.score(self._speaker(), prompt, tuple(ids), with_image=with_image)
            for prompt, ids in zip(prompts, token_ids, strict=True)
        ]

    def encode(self, prompt: Prompt, response: str) -> tuple[int, ...]:
        """See `Sampler.encode`."""
        return (*encode(response), EOS_ID)

    def encode_beginning(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        """See `Sampler.encode_beginning`. Empty where the language has no such response."""
        ids = encode(text)
        spoken = all(
            token in self._next_logprobs(prompt, ids[:place]) for place, token in enumerate(ids)
        )
        return ids if spoken else ()

    def room(self, prompt: Prompt) -> int:
        """See `Sampler.room`."""
        return self._config.max_context_tokens - _num_prompt_tokens(prompt)

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `Sampler.decode`."""
        return decode(token_ids)

    def close(self) -> None:
        """Nothing to free."""

    def stats(self) -> dict[str, float]:
        """Counts since it was built."""
        return {
            "num_requests": float(self._num_requests),
            "num_generated_tokens": float(self._num_generated_tokens),
        }

    def _step(self, request: StepRequest, settings: StepSettings, index: int) -> StepCandidate:
        prefix = request.prefix_token_ids
        prefix_text = decode(prefix)
        limits = step_limits(
            request, settings, _num_prompt_tokens(request.prompt), self._config.max_context_tokens
        )
        rng = random.Random(f"{request.seed}/{index}")
        branching = settings.diversity == "branch_first_token"
        ids: list[int] = []
        logprobs: list[float] = []
        reason = None
        while reason is None:
            known = self._next_logprobs(request.prompt, (*prefix, *ids))
            if branching:
                ranked = sorted(known, key=lambda token: (-known[token], token))
                token = ranked[index % len(ranked) if not ids else 0]
            else:
                token = _draw(known, settings.temperature, settings.top_p, rng)
            ids.append(token)
            logprobs.append(known[token])
            text = decode((*prefix, *ids))[len(prefix_text) :]
            reason = finish_reason(
                text,
                prefix_text=prefix_text,
                at_eos=token == EOS_ID,
                rule=settings.step_rule,
                left=limits.after(len(ids)),
            )
        self._num_generated_tokens += len(ids)
        return StepCandidate(
            text=text, token_ids=tuple(ids), token_logprobs=tuple(logprobs), finish_reason=reason
        )

    def _whole(self, request: StepRequest, settings: GenerateSettings) -> GeneratedResponse:
        ids = list(request.prefix_token_ids)
        logprobs = [value for step in request.prefix for value in step.token_logprobs]
        limit = len(ids) + response_limit(
            request,
            settings.max_response_tokens,
            _num_prompt_tokens(request.prompt),
            self._config.max_context_tokens,
        )
        rng = random.Random(f"{request.seed}/0")
        start = len(ids)
        while len(ids) < limit and ids[-1:] != [EOS_ID]:
            known = self._next_logprobs(request.prompt, tuple(ids))
            token = _draw(known, settings.temperature, settings.top_p, rng)
            ids.append(token)
            logprobs.append(known[token])
        self._num_generated_tokens += len(ids) - start
        return GeneratedResponse(
            prompt_id=request.prompt.prompt_id,
            text=decode(ids),
            token_ids=tuple(ids),
            token_logprobs=tuple(logprobs),
            finish_reason=FinishReason.EOS if ids[-1] == EOS_ID else FinishReason.LENGTH,
        )

    def _next_logprobs(self, prompt: Prompt, ids: tuple[int, ...]) -> dict[int, float]:
        return self._language.next_logprobs(self._speaker(), prompt, ids)

    def _speaker(self) -> str:
        assert self._policy is not None, "load_policy comes first"
        return self._policy.sha256


def _draw(known: dict[int, float], temperature: float, top_p: float, rng: random.Random) -> int:
    """One token, greedy at temperature 0. DataError where nothing may follow."""
    if not known:
        raise DataError(
            "The scripted sampler cannot continue this response: it is over, or it is none of "
            "its `replies`."
        )
    ranked = sorted(known, key=lambda token: (-known[token], token))
    if temperature == 0:
        return ranked[0]
    weights = [math.exp((known[token] - known[ranked[0]]) / temperature) for token in ranked]
    total, kept, mass = sum(weights), 0, 0.0
    while kept < len(ranked) and (kept == 0 or mass < top_p * total):
        mass += weights[kept]
        kept += 1
    return rng.choices(ranked[:kept], weights[:kept])[0]


def _num_prompt_tokens(prompt: Prompt) -> int:
    return 1 + len(prompt.text.split())
