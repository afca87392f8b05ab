"""What a policy's own processor says, whichever engine speaks: token ids, texts, room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csr import rendering
from csr.errors import ConfigError
from csr.protocols import GenerateSettings
from csr.samplers._shared import (
    ImageCache,
    check_tokens,
    decoded,
    derived_seed,
    eos_token_ids,
    image_identity,
    response_limit,
)
from csr.types import FinishReason, GeneratedResponse, Prompt, StepRequest

_MAX_KEPT_PROMPTS = 4096
"""Prompts whose token ids are kept: where each has a text of its own, all would fill memory."""
NEVER = -100.0
"""Logit bias of image and video markers. Raw log-probabilities are taken before it."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What an engine added to one sequence."""

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    """Raw, in nats, one a token."""
    at_eos: bool
    first_row: Mapping[int, float] = field(default_factory=dict)
    """Token id -> raw log-probability of the first token's alternatives, as many as asked for."""


class PromptedPolicy:
    """The processor's side of a policy behind an engine, which is its subclass's affair."""

    def __init__(self) -> None:
        self.eos_ids: frozenset[int] = frozenset()
        self._processor: Any = None
        self._images = ImageCache()
        self._image_sizes: dict[str, tuple[int, int]] = {}
        self._prompt_ids: dict[tuple[str, bool], list[int]] = {}
        self._expanded_ids: dict[tuple[str, tuple[int, int]], list[int]] = {}
        self.counts = dict.fromkeys(
            ("num_requests", "num_prompt_tokens", "num_cached_tokens", "num_generated_tokens"), 0
        )

    @property
    def max_context_tokens(self) -> int:
        """Tokens of prompt and response together that the engine takes."""
        raise NotImplementedError

    def _use_processor(self, path: Path, processor: Any) -> None:
        self._processor = processor
        self.eos_ids = eos_token_ids(path, processor)
        self._prompt_ids.clear()
        self._expanded_ids.clear()

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

    def room(self, prompt: Prompt) -> int:
        """See `Sampler.room`."""
        return self.max_context_tokens - len(self.expanded_ids(prompt))

    def expanded_ids(self, prompt: Prompt, *, with_image: bool = True) -> list[int]:
        """The prompt's ids as the processor itself expands the image.

        The expansion depends on the image's size alone, so it is kept by text and size.
        """
        if not with_image:
            return self.written_ids(prompt.text, with_image=False)
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

    def written_ids(self, text: str, *, with_image: bool) -> list[int]:
        """The prompt's ids with its image, if any, as one placeholder."""
        key = (text, with_image)
        if key not in self._prompt_ids:
            if len(self._prompt_ids) >= _MAX_KEPT_PROMPTS:
                self._prompt_ids.clear()
            self._prompt_ids[key] = rendering.prompt_token_ids(
                self._processor, text, with_image=with_image
            )
        return self._prompt_ids[key]

    def check_room(self, prompt: Prompt, num_tokens: int, *, with_image: bool = True) -> None:
        """ConfigError where `num_tokens` more do not fit behind the prompt."""
        num_prompt = len(self.expanded_ids(prompt, with_image=with_image))
        if num_prompt + num_tokens > self.max_context_tokens:
            raise ConfigError(
                f"Prompt {prompt.prompt_id!r} with its response takes {num_prompt + num_tokens} "
                f"tokens, more than the context of {self.max_context_tokens}. Raise the engine's "
                "max_context_tokens, up to what the model allows."
            )

    def whole_params(self, request: StepRequest, settings: GenerateSettings) -> dict[str, Any]:
        """vLLM's sampling parameters, by name, for the rest of a response."""
        num_prompt = len(self.expanded_ids(request.prompt))
        return {
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": response_limit(
                request, settings.max_response_tokens, num_prompt, self.max_context_tokens
            ),
            "seed": derived_seed(request.seed, 0, 0),
        }

    def whole_response(self, request: StepRequest, said: Spoken) -> GeneratedResponse:
        """The request's prefix and what was said behind it."""
        check_tokens(said.token_ids, said.logprobs, media_ids=self.media_ids)
        all_ids = (*request.prefix_token_ids, *said.token_ids)
        before = tuple(value for step in request.prefix for value in step.token_logprobs)
        return GeneratedResponse(
            prompt_id=request.prompt.prompt_id,
            text=self.decode(all_ids),
            token_ids=all_ids,
            token_logprobs=(*before, *said.logprobs),
            finish_reason=FinishReason.EOS if said.at_eos else FinishReason.LENGTH,
        )
