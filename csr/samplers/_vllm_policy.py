"""One policy behind a vLLM engine: requests in, checked outputs back.

vLLM accepts many wrong inputs without a word: ids that are expanded already, a missing image,
another image under a known name, caches of earlier weights. So each request carries the image
and its content's name, and each answer must show that it was read as the processor would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from csr import rendering
from csr.checkpoints import resolve_model
from csr.errors import ConfigError, EngineLost, ModelError, shown
from csr.samplers import _vllm_engine
from csr.samplers._loading import check_complete
from csr.samplers._shared import ImageCache, decoded, eos_token_ids, image_identity
from csr.types import PolicyRef, Prompt

_MAX_KEPT_PROMPTS = 4096
"""Prompts whose token ids are kept: where each has a text of its own, all would fill memory."""
_NEVER = -100.0
"""Logit bias of image and video markers. Raw log-probabilities are taken before it."""


@dataclass(frozen=True, slots=True)
class Job:
    """One request: continue `response_ids` for `prompt`."""

    prompt: Prompt
    response_ids: tuple[int, ...]
    params: Any
    """`vllm.SamplingParams`."""
    with_image: bool = True


class ServedPolicy:
    """Owns the engine, and what belongs to the policy that it serves."""

    def __init__(
        self, *, kv_cache_gib: float | None, max_batch_requests: int, **options: Any
    ) -> None:
        self._kv_cache_gib = kv_cache_gib
        self._max_batch_requests = max_batch_requests
        self._options = options
        self._engine: Any = None
        self._processor: Any = None
        self._architecture = ""
        self._sha256 = ""
        self.eos_ids: frozenset[int] = frozenset()
        self._running: dict[str, Job] = {}
        self._images = ImageCache()
        self._image_sizes: dict[str, tuple[int, int]] = {}
        self._prompt_ids: dict[tuple[str, bool], list[int]] = {}
        self._expanded_ids: dict[tuple[str, tuple[int, int]], list[int]] = {}
        self.counts = dict.fromkeys(
            ("num_requests", "num_prompt_tokens", "num_cached_tokens", "num_generated_tokens"), 0
        )

    def load(self, policy: PolicyRef) -> None:
        """Start the engine, or exchange its weights where the architecture is the same."""
        if self._engine is not None and policy.sha256 == self._sha256:
            return
        path = resolve_model(policy.model_path)
        check_complete(str(path))
        processor = rendering.load_processor(str(path))
        architecture = _vllm_engine.architecture(path, processor)
        if self._engine is not None and architecture != self._architecture:
            self.close()
        self._sha256 = ""  # whatever fails from here on, the old policy no longer speaks
        if self._engine is not None:
            _vllm_engine.reload_weights(self._engine, path)
        else:
            options = self._options
            if options["dtype"] == "auto":
                options = {**options, "dtype": _vllm_engine.checkpoint_dtype(path)}
            self._engine = _vllm_engine.start_engine(
                path, kv_cache_gib=self._kv_cache_gib, **options
            )
        self._processor, self._architecture = processor, architecture
        self.eos_ids = eos_token_ids(path, processor)
        self._prompt_ids.clear()
        self._expanded_ids.clear()
        self._sha256 = policy.sha256

    def close(self) -> None:
        """Stop the engine. Safe to call twice."""
        self._running.clear()
        if self._engine is not None:
            engine, self._engine, self._sha256 = self._engine, None, ""
            _vllm_engine.stop_engine(engine)

    @property
    def max_context_tokens(self) -> int:
        """Tokens of prompt and response together that the engine takes."""
        return int(self._engine.model_config.max_model_len)

    @property
    def num_cache_tokens(self) -> int:
        """Tokens that the engine's KV cache holds."""
        cache = self._engine.llm_engine.vllm_config.cache_config
        # Engines before this figure count blocks alone, which is right for plain attention.
        known = getattr(cache, "kv_cache_size_tokens", None)
        return int(known or cache.num_gpu_blocks * cache.block_size)

    @property
    def media_ids(self) -> tuple[int, ...]:
        """Ids of image and video markers."""
        return rendering.media_token_ids(self._processor)

    def encode(self, prompt: Prompt, response: str) -> tuple[int, ...]:
        """See `Sampler.encode`."""
        return tuple(rendering.response_token_ids(self._processor, prompt.text, response))

    def encode_beginning(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        """See `Sampler.encode_beginning`."""
        return tuple(rendering.beginning_token_ids(self._processor, prompt.text, text))

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `Sampler.decode`."""
        return decoded(self._processor, token_ids)

    def expanded_ids(self, prompt: Prompt, *, with_image: bool = True) -> list[int]:
        """The prompt's ids as the processor itself expands the image.

        The expansion depends on the image's size alone, so it is kept by text and size.
        """
        if not with_image:
            return self._written_ids(prompt.text, with_image=False)
        identity = image_identity(prompt.image)
        if identity not in self._image_sizes:
            self._image_sizes[identity] = self._images.load(prompt.image).size
        key = (prompt.text, self._image_sizes[identity])
        if key not in self._expanded_ids:
            if len(self._expanded_ids) >= _MAX_KEPT_PROMPTS:
                self._expanded_ids.clear()
            image = self._images.load(prompt.image)
            inputs = rendering.expanded_inputs(self._processor, [prompt.text], [image])
            self._expanded_ids[key] = list(inputs["input_ids"][0])
        return self._expanded_ids[key]

    def params(self, **settings: Any) -> Any:
        """Sampling parameters that never yield an image marker and report raw log-probabilities."""
        from vllm import SamplingParams

        bias = dict.fromkeys(self.media_ids, _NEVER)
        return SamplingParams(**{"logprobs": 0, "logit_bias": bias, **settings})

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        """Each job with its `vllm.RequestOutput`, in order."""
        assert self._sha256, "load_policy comes first, and must have succeeded"
        for start in range(0, len(jobs), self._max_batch_requests):
            batch = jobs[start : start + self._max_batch_requests]
            outputs = self._generate([self._input(job) for job in batch], batch)
            for job, output in zip(batch, outputs, strict=True):
                self._check(job, output)
                self._count(output)
                yield job, output

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        """Hand jobs to the engine without waiting. Returns the names that `ended` gives them."""
        assert self._sha256, "load_policy comes first, and must have succeeded"
        if not jobs:
            return []
        inputs = [self._input(job) for job in jobs]
        with self._stopped_by_failure():
            ids = self._engine.enqueue(inputs, [job.params for job in jobs], use_tqdm=False)
        # What the engine adds behind a dash is not in the name that its answers carry.
        names = [str(each).partition("-")[0] for each in ids]
        self._running.update(zip(names, jobs, strict=True))
        return names

    def ended(self) -> list[tuple[str, Any]]:
        """One step of the engine: the names of jobs that ended in it, with their outputs."""
        with self._stopped_by_failure():
            outputs = [each for each in self._engine.llm_engine.step() if each.finished]
        for output in outputs:
            self._check(self._running.pop(output.request_id), output)
            self._count(output)
        return [(output.request_id, output) for output in outputs]

    def abort(self, names: Sequence[str]) -> None:
        """Give up jobs that have not ended."""
        for name in names:
            self._running.pop(name, None)
        if names and self._engine is not None:
            self._engine.llm_engine.abort_request(list(names))

    def _generate(self, inputs: list[dict[str, Any]], batch: Sequence[Job]) -> list[Any]:
        """One batch through the engine."""
        assert not self._running, "the stream of steps has the engine for itself"
        with self._stopped_by_failure():
            outputs = self._engine.generate(inputs, [job.params for job in batch], use_tqdm=False)
        return list(outputs)

    @contextmanager
    def _stopped_by_failure(self) -> Iterator[None]:
        """An engine that failed half-way is not used again."""
        try:
            yield
        except BaseException as error:
            self.close()
            if not isinstance(error, Exception):
                raise
            raise _failure(error) from error

    def _input(self, job: Job) -> dict[str, Any]:
        written = self._written_ids(job.prompt.text, with_image=job.with_image)
        token_ids = [*written, *job.response_ids]
        if not job.with_image:
            return {"prompt_token_ids": token_ids}
        image = job.prompt.image
        return {
            "prompt_token_ids": token_ids,
            "multi_modal_data": {"image": self._images.load(image)},
            "multi_modal_uuids": {"image": [image_identity(image)]},
        }

    def _written_ids(self, text: str, *, with_image: bool) -> list[int]:
        """The prompt's ids with its image, if any, as one placeholder."""
        key = (text, with_image)
        if key not in self._prompt_ids:
            if len(self._prompt_ids) >= _MAX_KEPT_PROMPTS:
                self._prompt_ids.clear()
            self._prompt_ids[key] = rendering.prompt_token_ids(
                self._processor, text, with_image=with_image
            )
        return self._prompt_ids[key]

    def _check(self, job: Job, output: Any) -> None:
        expected_ids = self.expanded_ids(job.prompt, with_image=job.with_image)
        expected = [*expected_ids, *job.response_ids]
        if list(output.prompt_token_ids) != expected:
            raise ModelError(
                f"vLLM read prompt {job.prompt.prompt_id!r} as {len(output.prompt_token_ids)} "
                f"tokens; the model's own processor makes {len(expected)} of it. The two disagree "
                "on how an image becomes tokens, so its samples would be of another prompt. Set "
                "the sampler to 'transformers', or install the pinned vLLM."
            )
        if len(output.outputs) != job.params.n or any(
            completion.finish_reason not in ("stop", "length") for completion in output.outputs
        ):
            reasons = [completion.finish_reason for completion in output.outputs]
            raise ModelError(
                f"vLLM gave up on prompt {job.prompt.prompt_id!r} ({reasons}). Its log says why; "
                "most often memory is short: lower max_num_seqs or max_context_tokens."
            )

    def _count(self, output: Any) -> None:
        self.counts["num_requests"] += 1
        self.counts["num_prompt_tokens"] += len(output.prompt_token_ids)
        self.counts["num_cached_tokens"] += output.num_cached_tokens or 0
        self.counts["num_generated_tokens"] += sum(len(c.token_ids) for c in output.outputs)

    def check_room(self, prompt: Prompt, num_tokens: int, *, with_image: bool = True) -> None:
        """ConfigError where `num_tokens` more do not fit behind the prompt."""
        num_prompt = len(self.expanded_ids(prompt, with_image=with_image))
        if num_prompt + num_tokens > self.max_context_tokens:
            raise ConfigError(
                f"Prompt {prompt.prompt_id!r} with its response takes {num_prompt + num_tokens} "
                f"tokens, more than the context of {self.max_context_tokens}. Raise the sampler's "
                "max_context_tokens, up to what the model allows."
            )


def following(json_schema: str | None) -> Any:
    """vLLM's parameter that holds responses to the schema; None without one.

    ConfigError for what is no schema: the engine itself would stop.
    """
    if json_schema is None:
        return None
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import SamplingParams, StructuredOutputsParams
    from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar

    params = SamplingParams(structured_outputs=StructuredOutputsParams(json=json_schema))
    try:
        validate_xgrammar_grammar(params)
    except VLLMValidationError as error:
        raise ConfigError(
            f"vLLM cannot make responses follow the JSON schema {shown(json_schema)}: {error}. "
            "Use a JSON schema of objects, lists, strings, numbers and choices."
        ) from error
    return params.structured_outputs


def at_eos(completion: Any) -> bool:
    """A stop string leaves its text as the reason; the end of response leaves an id or none."""
    return completion.finish_reason == "stop" and not isinstance(completion.stop_reason, str)


def sampled_logprobs(completion: Any) -> list[float]:
    """The sampled tokens' own log-probabilities; check_tokens finds what is missing."""
    pairs = zip(completion.token_ids, completion.logprobs or (), strict=False)
    return [row[token_id].logprob for token_id, row in pairs if token_id in row]


def _failure(error: Exception) -> ModelError | EngineLost:
    """A refused request stays refused; an engine that died half-way may do less at a time."""
    reason = f"{type(error).__name__}: {str(error)[:200]}"
    if isinstance(error, ValueError | TypeError | AssertionError):
        return ModelError(
            f"vLLM refused what it was asked to sample ({reason}). The engine was stopped. Set "
            "the sampler to 'transformers', or install the pinned vLLM."
        )
    return EngineLost(
        f"vLLM failed while sampling ({reason}). The engine was stopped. Most often memory is "
        "short: lower max_num_seqs, kv_cache_gib or max_context_tokens, or set the sampler to "
        "'transformers'."
    )
