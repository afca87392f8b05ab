"""What samplers have in common whose policy renders prompts itself, wherever its engine runs."""

from __future__ import annotations

from collections.abc import Sequence

from csr.protocols import StepSettings
from csr.samplers._prompted_policy import PromptedPolicy
from csr.step_streams import StepStream, all_steps
from csr.types import Prompt, StepCandidate, StepRequest


class PromptedSampler:
    """Implements what of `csr.protocols.Sampler` does not depend on the engine."""

    _policy: PromptedPolicy

    def stream_steps(self, settings: StepSettings) -> StepStream:
        """See `Sampler.stream_steps`."""
        raise NotImplementedError

    def sample_steps(
        self, requests: Sequence[StepRequest], settings: StepSettings
    ) -> list[list[StepCandidate]]:
        """See `Sampler.sample_steps`."""
        return all_steps(self.stream_steps(settings), requests)

    def encode(self, prompt: Prompt, response: str) -> tuple[int, ...]:
        """See `Sampler.encode`."""
        return self._policy.encode(prompt, response)

    def encode_beginning(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        """See `Sampler.encode_beginning`."""
        return self._policy.encode_beginning(prompt, text)

    def room(self, prompt: Prompt) -> int:
        """See `Sampler.room`."""
        return self._policy.room(prompt)

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `Sampler.decode`."""
        return self._policy.decode(token_ids)

    def stats(self) -> dict[str, float]:
        """Counts since the sampler was built, and the share of prompt tokens found in the cache.

        Siblings sampled by one request count their prompt once.
        """
        counts = {name: float(value) for name, value in self._policy.counts.items()}
        hit_rate = counts["num_cached_tokens"] / max(counts["num_prompt_tokens"], 1.0)
        return {**counts, "prefix_cache_hit_rate": hit_rate}
