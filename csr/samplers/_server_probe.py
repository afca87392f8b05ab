"""Proof that all endpoints speak for one policy, as far as it can be had without its weights here.

Each endpoint scores one short text about one made-up image, and all must give it the same
log-probabilities. Each must also score what it samples as it said when it sampled, at another
temperature than 1: else it reports processed log-probabilities. An adapter must change something.
Whether the weights are the trained ones, the flow's own probe tells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from csr import rendering
from csr.errors import ModelError
from csr.samplers._prompted_policy import NEVER
from csr.samplers._server_answers import Answer
from csr.samplers._server_http import Endpoint
from csr.samplers._server_models import Served
from csr.samplers._server_requests import check_answer, image_part, payload
from csr.samplers._shared import check_tokens

if TYPE_CHECKING:
    from PIL.Image import Image

_PROMPT = "Describe the image."
_RESPONSE = " A red circle is at the top left, and a blue square is below it."
_NUM_SAMPLED_TOKENS = 8
_SIZE = (96, 64)
"""Of the image in pixels, (width, height)."""
SMALLEST_ADAPTER_CHANGE = 1e-6
"""Nats per token. Below this the adapter's voice cannot be told from the model's without it."""


class Probe:
    """One text to ask every endpoint for. Uses the processor when it is made, and not later."""

    def __init__(self, processor: Any) -> None:
        image = _image()
        self._image = image_part(image)
        self._written = rendering.prompt_token_ids(processor, _PROMPT)
        inputs = rendering.expanded_inputs(processor, [_PROMPT], [image])
        self._expanded = list(inputs["input_ids"][0])
        self._media_ids = rendering.media_token_ids(processor)
        self._bias = {str(token_id): NEVER for token_id in self._media_ids}
        ids = processor.tokenizer(_RESPONSE, add_special_tokens=False)["input_ids"]
        self._response = [token_id for token_id in ids if token_id not in self._media_ids]

    async def logprobs(
        self, endpoint: Endpoint, served: Served, tolerance: float
    ) -> tuple[float, ...]:
        """The text's log-probabilities in nats, one a token. ModelError, or NumericalError."""
        values = await self._score(endpoint, served.name, self._response)
        if served.base != served.name:
            without = await self._score(endpoint, served.base, self._response)
            if not largest_difference(values, without) > SMALLEST_ADAPTER_CHANGE:
                raise ModelError(
                    f"{endpoint.url} says the same with the adapter {served.name} as without it: "
                    "either the adapter changes nothing, or the server does not apply it."
                )
        said, reported = await self._sample(endpoint, served.name)
        scored = await self._score(endpoint, served.name, said)
        difference = largest_difference(reported, scored)
        if not difference <= tolerance:
            raise ModelError(
                f"{endpoint.url} scores what it sampled {difference:.2g} nats per token away from "
                f"what it said (endpoint_tolerance is {tolerance:.2g}). Start it without "
                "--logprobs-mode; in bf16 raise endpoint_tolerance to about 0.1."
            )
        return values

    async def _score(
        self, endpoint: Endpoint, model: str, response: Sequence[int]
    ) -> tuple[float, ...]:
        params = {"n": 1, "temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 0}
        answer = await self._ask(endpoint, model, response, params)
        values = answer.last_prompt_logprobs(len(response))
        check_tokens(response, values, media_ids=())
        return tuple(values)

    async def _sample(self, endpoint: Endpoint, model: str) -> tuple[Sequence[int], list[float]]:
        params = {"n": 1, "temperature": 0.5, "seed": 1, "logprobs": 0}
        limits = {"max_tokens": _NUM_SAMPLED_TOKENS, "logit_bias": self._bias}
        answer = await self._ask(endpoint, model, [], params | limits)
        spoken = answer.choices[0].spoken
        check_tokens(spoken.token_ids, spoken.logprobs, media_ids=self._media_ids)
        return spoken.token_ids, list(spoken.logprobs)

    async def _ask(
        self, endpoint: Endpoint, model: str, response: Sequence[int], params: dict[str, Any]
    ) -> Answer:
        request = payload([*self._written, *response], params, self._image)
        value = await endpoint.generate({**request, "model": model})
        answer = endpoint.validated(Answer, value)
        expected = [*self._expanded, *response]
        check_answer(endpoint, answer, expected, params, "the prompt that it is tested with")
        return answer


def agreed(found: Mapping[Endpoint, tuple[float, ...]], tolerance: float) -> tuple[float, ...]:
    """What most endpoints say. ModelError names those that say something else."""
    support = {
        endpoint: sum(largest_difference(values, other) <= tolerance for other in found.values())
        for endpoint, values in found.items()
    }
    most = max(support, key=lambda endpoint: support[endpoint])
    for endpoint, values in found.items():
        if support[most] == 1 and endpoint is not most:  # each says something of its own
            difference = largest_difference(values, found[most])
            raise _disagrees(f"{most.url} and {endpoint.url}", difference, tolerance)
        check_agrees(endpoint, values, found[most], tolerance)
    return found[most]


def check_agrees(
    endpoint: Endpoint, values: Sequence[float], reference: Sequence[float], tolerance: float
) -> None:
    """ModelError where an endpoint speaks for another policy than the others."""
    difference = largest_difference(values, reference)
    if not difference <= tolerance:
        raise _disagrees(f"{endpoint.url} and the others", difference, tolerance)


def largest_difference(left: Sequence[float], right: Sequence[float]) -> float:
    """In nats; NaN where one is, and infinite where there is nothing to compare."""
    differences = [abs(a - b) for a, b in zip(left, right, strict=True)]
    return math.nan if any(map(math.isnan, differences)) else max(differences, default=math.inf)


def _disagrees(who: str, difference: float, tolerance: float) -> ModelError:
    return ModelError(
        f"{who} disagree on the same text by {difference:.2g} nats per token (endpoint_tolerance "
        f"is {tolerance:.2g}): they do not serve the same weights. Start them with the same "
        "model and --dtype; in bf16, or on unlike machines, raise endpoint_tolerance to about 0.1."
    )


def _image() -> Image:
    """Three gradients: no two patches are alike."""
    from PIL import Image

    grey = Image.linear_gradient("L")
    turned = (grey, grey.rotate(90), Image.radial_gradient("L"))
    return Image.merge("RGB", [each.resize(_SIZE) for each in turned])
