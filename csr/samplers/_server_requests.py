"""A request for `vllm serve`'s token route, and the proof that it was read as it was meant."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from csr.errors import ModelError
from csr.samplers._server_answers import Answer
from csr.samplers._server_http import Endpoint

if TYPE_CHECKING:
    from PIL.Image import Image

_FAST = 1
"""zlib's level: a higher one takes several times as long for a tenth fewer bytes."""


def image_part(image: Image) -> dict[str, str]:
    """A decoded image as it travels, without loss, under the name of its own content.

    The server never opens a file or an address, and decodes exactly these pixels.
    """
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=_FAST)
    data = buffer.getvalue()
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    # vLLM takes an image from its cache by this name alone.
    return {"type": "image_url", "url": url, "uuid": hashlib.sha256(data).hexdigest()}


def payload(
    token_ids: Sequence[int], params: dict[str, Any], image: dict[str, str] | None
) -> dict[str, Any]:
    """The request, without the model's name. `token_ids` hold an image as ONE placeholder."""
    parts = {"content_parts": [image]} if image is not None else {}
    return {
        "token_ids": list(token_ids),
        "sampling_params": params,
        "return_token_ids": True,
        **parts,
    }


def check_answer(
    endpoint: Endpoint,
    answer: Answer,
    expected_ids: Sequence[int],
    params: dict[str, Any],
    what: str,
) -> None:
    """ModelError where the prompt was read otherwise, or the answer is not what was asked for.

    vLLM accepts ids that are expanded already and another number of images without a word.
    """
    if answer.prompt_token_ids != list(expected_ids):
        raise ModelError(
            f"{endpoint.url} read {what} as {len(answer.prompt_token_ids)} tokens that are not "
            f"the {len(expected_ids)} which the model's own processor makes of it, so its answers "
            "would be to another prompt. Serve the policy's own directory, by the pinned vLLM."
        )
    reasons = [choice.finish_reason for choice in answer.choices]
    if len(reasons) != params["n"] or any(each not in ("stop", "length") for each in reasons):
        raise ModelError(
            f"{endpoint.url} gave up on {what} ({len(reasons)} of {params['n']} answers, which "
            f"ended by {sorted(map(str, reasons))[:4]}). Its log says why."
        )
    if any(not 0 < len(choice.token_ids) <= params["max_tokens"] for choice in answer.choices):
        raise ModelError(
            f"{endpoint.url} answered {what} with no token, or with more than the "
            f"{params['max_tokens']} that were asked for. Install the pinned vLLM there."
        )
    if [choice.index for choice in answer.choices] != list(range(params["n"])):
        raise ModelError(
            f"{endpoint.url} answered {what} out of order. Install the pinned vLLM there."
        )
