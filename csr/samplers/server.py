"""Samples sentence by sentence from any number of `vllm serve` endpoints, over HTTP.

Requests go to vLLM's route for token ids, /inference/v1/generate (`vllm serve --enable-scale-out`),
and are what the sampler 'vllm' hands to its own engine: the prompt's token ids with one image
placeholder, the response's own token ids so far, the image, and its content's name. Nothing is
re-tokenised, no chat template is applied by the server, and the server's own sampling defaults
count for nothing. Chat completions would take text: whether a prefix comes back as the same tokens
then depends on the template (a space too many gives other tokens, and no error), and completions
take no image. Either way each answer shows how the prompt was read, and is refused where that is
not, token by token, the expanded prompt and the prefix.

Policies: an endpoint must serve the directory that the policy is in, or have the model on which its
LoRA adapter was trained; then the adapter is loaded while it runs. Server and sampler must see the
same paths. docs/remote_engines.md has the commands.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from pydantic import Field, field_validator

from csr.config import ComponentConfig
from csr.errors import ConfigError, shown
from csr.planning import PlannedEngine
from csr.prompts import PromptCheck
from csr.protocols import GenerateSettings, Sampler, StepSettings
from csr.samplers._loading import check_checkpoint
from csr.samplers._prompt_check import prompt_check
from csr.samplers._prompted_sampler import PromptedSampler
from csr.samplers._server_fleet import Fleet
from csr.samplers._server_http import Endpoint
from csr.samplers._server_policy import Job, RemotePolicy
from csr.samplers._server_steps import ServerSteps
from csr.samplers._shared import check_tokens, refuse_markers, refuse_schema
from csr.samplers._vllm_engine import planned_caches
from csr.step_streams import StepStream
from csr.types import GeneratedResponse, PolicyRef, Prompt, StepRequest

_SERVED_SEQUENCES = 256
_SERVED_MEMORY_SHARE = 0.9
"""Defaults of `vllm serve`, which a plan takes for granted."""


class Config(ComponentConfig):
    """Settings of the sampler that asks servers."""

    endpoints: tuple[str, ...] = Field(min_length=1)
    """Base URLs of `vllm serve`, such as http://127.0.0.1:8000; http or https, no user, no path
    behind the server's own root. All must serve the same model."""
    model: str | None = None
    """The name under which the endpoints serve the model (--served-model-name); None goes by the
    directory that each server lists for its models."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the servers' API key; None sends no key."""
    max_running_requests: int = Field(default=32, ge=1, le=4096)
    """Requests that one endpoint has at once; each is as many sequences as it has candidates. More
    of them wait here."""
    timeout_seconds: float = Field(default=300.0, gt=0)
    """For one request, its waiting inside the server included."""
    num_retries: int = Field(default=3, ge=0, le=10)
    """Further tries of a request at one endpoint, after 0.5, 1, 2, ... seconds. Then the endpoint
    is set aside and the request goes to another."""
    endpoint_tolerance: float = Field(default=1e-3, gt=0)
    """Largest difference in nats per token between two endpoints' log-probabilities of one text
    (fp32; use about 0.1 in bf16)."""

    @field_validator("endpoints", mode="before")
    @classmethod
    def _refuse_text(cls, value: object) -> object:
        if isinstance(value, str):  # not shown: it may hold a password
            raise ValueError("is one text. Give a list: endpoints: [http://127.0.0.1:8000].")
        return value

    @field_validator("api_key_env")
    @classmethod
    def _check_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", value):
            # Not shown: who takes the key itself for its variable's name has given a secret.
            raise ValueError(
                "is no name of an environment variable in capitals, such as CSR_VLLM_KEY. Give "
                "the name of the variable that holds the key, not the key."
            )
        return value

    @field_validator("endpoints")
    @classmethod
    def _check_endpoints(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        urls = tuple(_base_url(each) for each in value)
        if repeated := sorted({url for url in urls if urls.count(url) > 1}):
            raise ValueError(f"{repeated[0]} is named twice. Name each endpoint once.")
        return urls


def planned_engine(config: Config) -> PlannedEngine:
    """One engine an endpoint, each on one GPU as `vllm serve` has it where nothing else is said."""
    cache, cpu_cache = planned_caches(None)
    return PlannedEngine(
        dtype="auto",
        num_engines=len(config.endpoints),
        is_running=True,
        max_sequences=_SERVED_SEQUENCES,
        max_batch_requests=config.max_running_requests,
        memory_share=_SERVED_MEMORY_SHARE,
        cache=cache,
        cpu_cache=cpu_cache,
    )


def build(config: Config) -> Sampler:
    """The sampler. ConfigError where the API key's environment variable is not set."""
    return ServerSampler(config)


def check_model(path: Path) -> None:
    """What can be known before a server is asked. ModelError."""
    check_checkpoint(path)


def check_prompts(path: Path, config: Config) -> PromptCheck:
    """The test of prompts for the checkpoint in `path`; a server may allow less than that does.

    ConfigError where the API key's environment variable is not set.
    """
    _api_key(config.api_key_env)
    return prompt_check(path, None)


class ServerSampler(PromptedSampler):
    """Implements `csr.protocols.Sampler`."""

    _policy: RemotePolicy

    def __init__(self, config: Config) -> None:
        api_key = _api_key(config.api_key_env)

        def start_fleet(counts: dict[str, int]) -> Fleet:
            endpoints = [
                Endpoint(url, api_key=api_key, timeout_seconds=config.timeout_seconds)
                for url in config.endpoints
            ]
            return Fleet(
                endpoints,
                max_running_requests=config.max_running_requests,
                num_retries=config.num_retries,
                counts=counts,
            )

        self._num_endpoints = len(config.endpoints)
        self._policy = RemotePolicy(
            start_fleet, model=config.model, tolerance=config.endpoint_tolerance
        )

    def load_policy(self, policy: PolicyRef) -> None:
        """See `Sampler.load_policy`. EngineLost where no endpoint answers."""
        self._policy.load(policy)

    def stream_steps(self, settings: StepSettings) -> StepStream:
        """See `Sampler.stream_steps`. Greedy candidates are all equal, and sampled once."""
        return ServerSteps(self._policy, settings)

    def cache_share(self, prompt: Prompt, num_tokens: int) -> float:
        """See `Sampler.cache_share`: of all endpoints' caches; 0 where they do not tell."""
        if not self._policy.num_cache_tokens:
            return 0.0
        num_all = len(self._policy.expanded_ids(prompt)) + num_tokens
        return num_all / self._policy.num_cache_tokens

    def generate(
        self, requests: Sequence[StepRequest], settings: GenerateSettings
    ) -> list[GeneratedResponse]:
        """See `Sampler.generate`."""
        refuse_schema(settings, "server")
        jobs = []
        for request in requests:
            params = self._policy.params(**self._policy.whole_params(request, settings))
            jobs.append(Job(request.prompt, request.prefix_token_ids, params))
        return [
            self._policy.whole_response(request, answer.choices[0].spoken)
            for request, (_, answer) in zip(requests, self._policy.ask(jobs), strict=True)
        ]

    def score(
        self,
        prompts: Sequence[Prompt],
        token_ids: Sequence[Sequence[int]],
        *,
        with_image: bool = True,
    ) -> list[tuple[float, ...]]:
        """See `Sampler.score`. DataError where a response holds an image marker."""
        params = self._policy.params(temperature=0.0, max_tokens=1, prompt_logprobs=0)
        jobs = []
        for prompt, ids in zip(prompts, token_ids, strict=True):
            refuse_markers(prompt, ids, self._policy.media_ids)
            self._policy.check_room(prompt, len(ids) + 1, with_image=with_image)
            jobs.append(Job(prompt, tuple(ids), params, with_image))
        scores = []
        for job, answer in self._policy.ask(jobs):
            values = answer.last_prompt_logprobs(len(job.response_ids))
            check_tokens(job.response_ids, values, media_ids=())
            scores.append(tuple(values))
        return scores

    def close(self) -> None:
        """Break off what runs; the servers stay. A later `load_policy` asks them anew."""
        self._policy.close()

    def stats(self) -> dict[str, float]:
        """See `PromptedSampler.stats`, and the number of endpoints.

        The share is 0 where the servers run without --enable-prompt-tokens-details.
        """
        return super().stats() | {"num_endpoints": float(self._num_endpoints)}


def _base_url(text: str) -> str:
    """The URL as requests begin with it. ValueError where it is none that can be used."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
        httpx.URL(text)
    except (ValueError, httpx.InvalidURL) as error:
        raise ValueError(f"{shown(text)} is not a URL ({error}).") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "an endpoint's URL holds a user or a password. Name the environment variable that "
            "holds the key in api_key_env."
        )
    plain = text.isascii() and text.isprintable() and " " not in text
    if parts.scheme not in ("http", "https") or not host or not plain:
        raise ValueError(
            f"{shown(text)} is not the address of a server. Give a base URL such as "
            "http://127.0.0.1:8000."
        )
    if "?" in text or "#" in text:
        raise ValueError(
            f"{shown(text)} has more than a base URL has. Leave out what follows '?' or '#'."
        )
    return text.rstrip("/").removesuffix("/v1")


def _api_key(name: str | None) -> str | None:
    """The key in that environment variable. ConfigError, which does not show it."""
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"The sampler's api_key_env is {name}, and that environment variable is not set. Set "
            "it to the key that the servers were started with, or leave api_key_env out."
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(
            f"The environment variable {name} holds what no API key can hold (a space, or a "
            "character that is not ASCII). Set it again."
        )
    return key
