"""What every sampler decides in the same way: limits, ends, seeds, and checks of what came back."""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csr.errors import ConfigError, DataError, ModelError, NumericalError
from csr.images import load_image
from csr.protocols import GenerateSettings, StepRule, StepSettings
from csr.steps import step_end, whole_letters
from csr.types import FinishReason, ImageRef, Prompt, StepRequest

if TYPE_CHECKING:
    from PIL.Image import Image

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """How many tokens may still follow a prefix."""

    step: int
    """Until the step is cut."""
    response: int
    """Until the response is cut, by its own limit or by the model's context."""

    @property
    def next(self) -> int:
        """The nearer of the two."""
        return min(self.step, self.response)

    def after(self, num_tokens: int) -> TokenLimits:
        """What is left once `num_tokens` more were sampled."""
        return TokenLimits(self.step - num_tokens, self.response - num_tokens)


def step_limits(
    request: StepRequest, settings: StepSettings, num_prompt_tokens: int, max_context_tokens: int
) -> TokenLimits:
    """Limits of the next step. ConfigError where the context has no room for one token."""
    return TokenLimits(
        settings.max_step_tokens,
        response_limit(
            request, settings.max_response_tokens, num_prompt_tokens, max_context_tokens
        ),
    )


def response_limit(
    request: StepRequest, max_response_tokens: int, num_prompt_tokens: int, max_context_tokens: int
) -> int:
    """Tokens that may follow the prefix. `num_prompt_tokens` counts the expanded image."""
    num_prefix = len(request.prefix_token_ids)
    room = max_context_tokens - num_prompt_tokens - num_prefix
    if room < 1:
        raise ConfigError(
            f"Prompt {request.prompt.prompt_id!r} takes {num_prompt_tokens} tokens (image "
            f"included) and its response so far {num_prefix}, which leaves no room in a context "
            f"of {max_context_tokens}. Raise the sampler's max_context_tokens, up to what the "
            "model allows, or use a shorter prompt or a smaller image."
        )
    left = max_response_tokens - num_prefix
    assert left > 0, "a prefix as long as max_response_tokens has finish_reason LENGTH"
    return min(room, left)


def finish_reason(
    text: str, *, prefix_text: str, at_eos: bool, rule: StepRule, left: TokenLimits
) -> FinishReason | None:
    """Why the step that now reads `text` is over, None where it is not.

    A sentence that ends on the response's very last token is LENGTH: nothing can follow it.
    """
    if at_eos:
        return FinishReason.EOS
    if left.response <= 0:
        return FinishReason.LENGTH
    if step_end(text, rule, prefix_text) is not None:
        return FinishReason.STEP
    return FinishReason.CUT if left.step <= 0 else None


def decoded(processor: Any, token_ids: Sequence[int]) -> str:
    """The text without special tokens, and without a last letter that is not whole."""
    text = processor.tokenizer.decode(
        list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return whole_letters(str(text))


def text_after(decode: Decode, prefix_ids: Sequence[int], step_ids: Sequence[int]) -> str:
    """The text that `step_ids` add. Decoded together, since a token alone may read differently."""
    return decode([*prefix_ids, *step_ids])[len(decode(prefix_ids)) :]


def derived_seed(seed: int, *path: int) -> int:
    """A seed of 62 bits for one draw of one request, e.g. candidate 3 in round 0."""
    digest = hashlib.sha256("/".join(map(str, (seed, *path))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2


def eos_token_ids(model_path: Path, processor: Any) -> frozenset[int]:
    """Every id that ends a response: the tokenizer's, and those of generation_config.json."""
    found: list[int | list[int] | None] = [processor.tokenizer.eos_token_id]
    file = model_path / "generation_config.json"
    if file.is_file():
        found.append(json.loads(file.read_text()).get("eos_token_id"))
    ids = {
        i for each in found if each is not None for i in ([each] if isinstance(each, int) else each)
    }
    if not ids:
        raise ModelError(
            f"{model_path} names no end-of-response token, so no response would ever end. Set "
            "eos_token_id in its generation_config.json."
        )
    return frozenset(ids)


def image_identity(image: ImageRef) -> str:
    """What tells two images apart: their content and what was done to it."""
    return image.sha256 if image.corruption is None else f"{image.sha256}:{image.corruption}"


def check_tokens(
    token_ids: Sequence[int], token_logprobs: Sequence[float], *, media_ids: Sequence[int]
) -> None:
    """NumericalError or ModelError where sampled tokens cannot be used."""
    if len(token_ids) != len(token_logprobs):
        raise ModelError(
            f"The engine returned {len(token_logprobs)} log-probabilities for {len(token_ids)} "
            "tokens. This version of it does not fit; install the pinned one."
        )
    bad = [value for value in token_logprobs if not math.isfinite(value)]
    if bad:
        raise NumericalError(
            f"{len(bad)} of {len(token_logprobs)} sampled tokens have a log-probability that is "
            f"not finite ({bad[0]}). The weights are damaged or overflow in this dtype: use "
            "bfloat16 instead of float16, or an earlier policy."
        )
    if set(token_ids) & set(media_ids):
        raise ModelError(
            "The policy sampled an image or video marker, which no response may hold. The marker "
            "was not banned by the engine; install the pinned version."
        )


def refuse_markers(prompt: Prompt, token_ids: Sequence[int], media_ids: Sequence[int]) -> None:
    """DataError where a response that is to be scored holds an image or video marker."""
    if set(media_ids) & set(token_ids):
        raise DataError(
            f"The response to prompt {prompt.prompt_id!r} holds an image or video marker; "
            "no policy could have said it. Score only sampled responses."
        )


def refuse_schema(settings: GenerateSettings, sampler: str) -> None:
    """ConfigError where responses must follow a JSON schema, which this sampler cannot force."""
    if settings.json_schema is not None:
        raise ConfigError(
            f"Responses must follow a JSON schema here, and the sampler {sampler!r} cannot make "
            "them. Set the sampler to 'vllm', which can."
        )


class ImageCache:
    """The last decoded images by content. Each load proves the file's hash (DataError)."""

    def __init__(self, max_images: int = 256) -> None:
        self._max_images = max_images
        self._images: OrderedDict[str, Image] = OrderedDict()

    def load(self, ref: ImageRef) -> Image:
        """The image as RGB."""
        identity = image_identity(ref)
        if identity not in self._images:
            self._images[identity] = load_image(ref)
            if len(self._images) > self._max_images:
                self._images.popitem(last=False)
        self._images.move_to_end(identity)
        return self._images[identity]
