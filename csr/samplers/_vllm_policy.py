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
from csr.samplers._prompted_policy import NEVER, PromptedPolicy, Spoken
from csr.samplers._shared import image_identity
from csr.types import PolicyRef, Prompt


@dataclass(frozen=True, slots=True)
class Job:
    """One request: continue `response_ids` for `prompt`."""

    prompt: Prompt
    response_ids: tuple[int, ...]
    params: Any
    """`vllm.SamplingParams`."""
    with_image: bool = True


class ServedPolicy(PromptedPolicy):
    """Owns the engine, and what belongs to the policy that it serves."""

    def __init__(
        self, *, kv_cache_gib: float | None, max_batch_requests: int, **options: Any
    ) -> None:
        super().__init__()
        self._kv_cache_gib = kv_cache_gib
        self._max_batch_requests = max_batch_requests
        self._options = options
        self._engine: Any = None
        self._architecture = ""
        self._sha256 = ""
        self._running: dict[str, Job] = {}

    def load(self, policy: PolicyRef) -> None:
        """Start the engine, or exchange its weights where the architecture is the same.

        Of the policy that speaks already, the caches are emptied: what they hold decides into which
        batches the rest falls, and with that the last bits of log-probabilities.
        """
        if self._engine is not None and policy.sha256 == self._sha256:
            _vllm_engine.empty_caches(self._engine)
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
        self._architecture = architecture
        self._use_processor(path, processor)
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

    def params(self, **settings: Any) -> Any:
        """Sampling parameters that never yield an image marker and report raw log-probabilities."""
        from vllm import SamplingParams

        bias = dict.fromkeys(self.media_ids, NEVER)
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
        written = self.written_ids(job.prompt.text, with_image=job.with_image)
        token_ids = [*written, *job.response_ids]
        if not job.with_image:
            return {"prompt_token_ids": token_ids}
        image = job.prompt.image
        return {
            "prompt_token_ids": token_ids,
            "multi_modal_data": {"image": self._images.load(image)},
            "multi_modal_uuids": {"image": [image_identity(image)]},
        }

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


def spoken(completion: Any) -> Spoken:
    """One completion of a `vllm.RequestOutput`."""
    rows = completion.logprobs or ()
    # What lacks its own log-probability is found by check_tokens.
    pairs = zip(completion.token_ids, rows, strict=False)
    # A stop string leaves its text as the reason; the end of response leaves an id or none.
    at_eos = completion.finish_reason == "stop" and not isinstance(completion.stop_reason, str)
    return Spoken(
        token_ids=list(completion.token_ids),
        logprobs=[row[token_id].logprob for token_id, row in pairs if token_id in row],
        at_eos=at_eos,
        first_row={i: entry.logprob for i, entry in rows[0].items()} if rows else {},
    )


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
