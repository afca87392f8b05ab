"""One policy at all endpoints: found or loaded there, probed, asked, and its answers checked."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from csr import rendering
from csr.checkpoints import resolve_model
from csr.errors import CSRError, ModelError
from csr.samplers._prompted_policy import NEVER, PromptedPolicy
from csr.samplers._server_answers import Answer, num_cache_tokens
from csr.samplers._server_fleet import Call, Fleet
from csr.samplers._server_http import Endpoint, Unavailable
from csr.samplers._server_models import Wanted, find_or_load
from csr.samplers._server_probe import Probe, agreed, check_agrees
from csr.samplers._server_requests import check_answer, image_part, payload
from csr.samplers._shared import image_identity
from csr.types import PolicyRef, Prompt

_MAX_KEPT_IMAGES = 256
"""Encoded images that are kept; a photograph has about half a megabyte."""


@dataclass(frozen=True, slots=True)
class Job:
    """One request: continue `response_ids` for `prompt`."""

    prompt: Prompt
    response_ids: tuple[int, ...]
    params: dict[str, Any]
    """vLLM's sampling parameters, by name."""
    with_image: bool = True


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What an endpoint shows when it has the policy."""

    max_context_tokens: int
    num_cache_tokens: int
    logprobs: tuple[float, ...]
    """Of the probe's text, in nats."""


class RemotePolicy(PromptedPolicy):
    """What belongs to the policy that the endpoints of a fleet serve."""

    def __init__(
        self,
        start_fleet: Callable[[dict[str, int]], Fleet],
        *,
        model: str | None,
        tolerance: float,
    ) -> None:
        """`start_fleet` makes one that adds to the given counts."""
        super().__init__()
        self.counts |= {"num_retries": 0, "num_set_aside": 0}
        self._start_fleet = start_fleet
        self._fleet: Fleet | None = None
        self._model = model
        self._tolerance = tolerance
        self._sha256 = ""
        self._max_context_tokens = 0
        self._reference: tuple[float, ...] = ()
        self._pngs: OrderedDict[str, dict[str, str]] = OrderedDict()
        self.num_cache_tokens = 0
        """Tokens that the KV caches of all endpoints hold together; 0 where they do not tell."""

    def load(self, policy: PolicyRef) -> None:
        """Have the endpoints speak for the policy, and prove that they speak alike.

        ModelError names an endpoint that cannot, or that disagrees; EngineLost where none answers.
        """
        if self._fleet is not None and self._sha256 == policy.sha256:
            return
        if self._fleet is None:
            self._fleet = self._start_fleet(self.counts)
        path = resolve_model(policy.model_path)
        processor = rendering.load_processor(str(path))
        wanted = Wanted.of(policy, path, self._model)
        self._sha256 = ""  # whatever fails from here on, the old policy no longer speaks
        self._use_processor(path, processor)
        probe = Probe(processor)

        async def load(endpoint: Endpoint) -> _Loaded:
            return await _loaded(endpoint, wanted, probe, self._tolerance)

        async def admit(endpoint: Endpoint) -> None:
            found = await load(endpoint)
            check_agrees(endpoint, found.logprobs, self._reference, self._tolerance)
            if found.max_context_tokens < self._max_context_tokens:
                raise ModelError(
                    f"{endpoint.url} now takes {found.max_context_tokens} tokens at most, fewer "
                    f"than the {self._max_context_tokens} that the run goes by. Start it as before."
                )

        loaded = self.fleet.run(self.fleet.begin(load, admit))
        self._reference = agreed(
            {endpoint: each.logprobs for endpoint, each in loaded.items()}, self._tolerance
        )
        self._max_context_tokens = min(each.max_context_tokens for each in loaded.values())
        self.num_cache_tokens = sum(each.num_cache_tokens for each in loaded.values())
        self._sha256 = policy.sha256

    def close(self) -> None:
        """Break off what runs. Safe to call twice."""
        self._sha256 = ""
        if self._fleet is not None:
            fleet, self._fleet = self._fleet, None
            fleet.close()

    @property
    def fleet(self) -> Fleet:
        """The endpoints; there are some once a policy was loaded."""
        assert self._fleet is not None, "load_policy comes first"
        return self._fleet

    @property
    def max_context_tokens(self) -> int:
        """Tokens of prompt and response together that every endpoint takes."""
        self._check_loaded()
        return self._max_context_tokens

    def params(self, **settings: Any) -> dict[str, Any]:
        """Sampling parameters that never yield an image marker and report raw log-probabilities."""
        bias = {str(token_id): NEVER for token_id in self.media_ids}
        return {"n": 1, "logprobs": 0, "logit_bias": bias, **settings}

    def call(self, job: Job) -> Call:
        """The request for a job. DataError where its image is no longer what it was."""
        self._check_loaded()
        written = self.written_ids(job.prompt.text, with_image=job.with_image)
        image = self._png(job.prompt) if job.with_image else None
        key = f"{image_identity(job.prompt.image)}\n{job.prompt.text}"
        return Call(key, payload([*written, *job.response_ids], job.params, image))

    def ask(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Answer]]:
        """Each job with its checked answer, in order."""
        # Twice what may run keeps the endpoints busy, and few images in memory.
        window = 2 * self.fleet.num_slots
        waiting: deque[tuple[Job, Call]] = deque()
        left = iter(jobs)
        try:
            while True:
                while len(waiting) < window and (job := next(left, None)) is not None:
                    call = self.call(job)
                    self.fleet.submit(call)
                    waiting.append((job, call))
                if not waiting:
                    return
                job, call = waiting[0]
                answer = self.answer(job, call)
                waiting.popleft()
                yield job, answer
        finally:
            self.fleet.abandon([call for _, call in waiting])

    def answer(self, job: Job, call: Call) -> Answer:
        """What a job was answered, once it is; ModelError where it is of another prompt."""
        endpoint, value = call.future.result()
        found = endpoint.validated(Answer, value)
        expected = [*self.expanded_ids(job.prompt, with_image=job.with_image), *job.response_ids]
        what = f"prompt {job.prompt.prompt_id!r}"
        check_answer(endpoint, found, expected, job.params, what)
        self.counts["num_requests"] += 1
        self.counts["num_prompt_tokens"] += len(found.prompt_token_ids)
        self.counts["num_cached_tokens"] += found.num_cached_tokens
        self.counts["num_generated_tokens"] += sum(len(each.token_ids) for each in found.choices)
        return found

    def _check_loaded(self) -> None:
        assert self._sha256, "load_policy comes first, and must have succeeded"

    def _png(self, prompt: Prompt) -> dict[str, str]:
        """The prompt's image as it travels."""
        identity = image_identity(prompt.image)
        if identity not in self._pngs:
            self._pngs[identity] = image_part(self._images.load(prompt.image))
            if len(self._pngs) > _MAX_KEPT_IMAGES:
                self._pngs.popitem(last=False)
        self._pngs.move_to_end(identity)
        return self._pngs[identity]


async def _loaded(endpoint: Endpoint, wanted: Wanted, probe: Probe, tolerance: float) -> _Loaded:
    served = await find_or_load(endpoint, wanted)
    logprobs = await probe.logprobs(endpoint, served, tolerance)
    try:
        metrics = await endpoint.get("/metrics")
    except (CSRError, Unavailable):
        metrics = b""  # a gateway may hide them: then nobody knows how full the cache is
    endpoint.served = served.name
    num_tokens = num_cache_tokens(metrics.decode(errors="replace"))
    return _Loaded(served.max_context_tokens, num_tokens, logprobs)
