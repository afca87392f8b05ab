"""The forms of what `vllm serve` answers, as far as they are read; the rest is ignored."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BaseModel, Field, StrictInt

from csr.samplers._prompted_policy import Spoken

_TokenId = Annotated[StrictInt, Field(ge=0)]
_FLOOR = -9999.0
"""vLLM writes this for what JSON cannot: a log-probability that is NaN or minus infinity."""
_CACHE_INFO = re.compile(r"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)


class Card(BaseModel):
    """A model or an adapter that a server lists."""

    id: str = Field(max_length=4096)
    root: str | None = Field(default=None, max_length=4096)
    """Where its weights were read from, as the server was told."""
    parent: str | None = None
    """Of an adapter, the model that it belongs to."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Tokens of prompt and response together; adapters have none of their own."""


class Cards(BaseModel):
    """The answer of /v1/models."""

    data: list[Card] = Field(max_length=10_000)


class _Logprob(BaseModel):
    logprob: float

    @property
    def nats(self) -> float:
        """NaN where the engine had no finite value, so that nobody takes the floor for one."""
        return self.logprob if self.logprob > _FLOOR else math.nan


class _Alternative(_Logprob):
    token_id: _TokenId


class _Place(_Alternative):
    top_logprobs: list[_Alternative] = []


class _Places(BaseModel):
    content: list[_Place]


class Choice(BaseModel):
    """One sequence of an answer."""

    index: int
    finish_reason: str | None
    stop_reason: int | str | None = None
    token_ids: list[_TokenId]
    logprobs: _Places | None = None

    @property
    def spoken(self) -> Spoken:
        """What was said; tokens whose log-probabilities are another token's have none."""
        places = self.logprobs.content if self.logprobs else []
        pairs = zip(self.token_ids, places, strict=False)
        # A stop string leaves its text as the reason; the end of response leaves an id or none.
        at_eos = self.finish_reason == "stop" and not isinstance(self.stop_reason, str)
        return Spoken(
            token_ids=self.token_ids,
            logprobs=[place.nats for token_id, place in pairs if place.token_id == token_id],
            at_eos=at_eos,
            first_row={each.token_id: each.nats for each in places[0].top_logprobs}
            if places
            else {},
        )


class _PromptDetails(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens_details: _PromptDetails | None = None


class Answer(BaseModel):
    """The answer of /inference/v1/generate."""

    prompt_token_ids: list[_TokenId]
    """As the engine read the prompt, its image expanded."""
    choices: list[Choice]
    prompt_logprobs: list[dict[int, _Logprob] | None] | None = None
    usage: _Usage | None = None

    @property
    def num_cached_tokens(self) -> int:
        """Prompt tokens that came from the cache; 0 where the server does not tell."""
        details = self.usage and self.usage.prompt_tokens_details
        return (details.cached_tokens or 0) if details else 0

    def last_prompt_logprobs(self, num_tokens: int) -> list[float]:
        """The raw log-probabilities, in nats, of the prompt's last so many tokens.

        Fewer where the server left some out.
        """
        start = len(self.prompt_token_ids) - num_tokens
        rows = (self.prompt_logprobs or [])[start:]
        pairs = zip(self.prompt_token_ids[start:], rows, strict=False)
        return [row[token_id].nats for token_id, row in pairs if row and token_id in row]


def num_cache_tokens(metrics: str) -> int:
    """Tokens that a server's KV cache holds, by its /metrics; 0 where they do not tell."""
    return sum(_tokens_of(labels) for labels in _CACHE_INFO.findall(metrics))


def _tokens_of(labels: str) -> int:
    found = dict(re.findall(r'(\w+)="(\d{1,15})"', labels))
    # Engines before this figure count blocks alone, which is right for plain attention.
    known = int(found.get("kv_cache_size_tokens", 0))
    return known or int(found.get("num_gpu_blocks", 0)) * int(found.get("block_size", 0))
