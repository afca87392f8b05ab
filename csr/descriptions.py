"""Answering with a description at hand: what STIC trains for and asks (arXiv:2405.19716, 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from csr.errors import DataError
from csr.protocols import GenerateSettings, Sampler
from csr.types import Prompt, StepRequest


def infused(prompt: Prompt, description: str) -> Prompt:
    """The prompt with a description of its image before the question."""
    text = f"Image description:\n{description.strip()}\n\n{prompt.text}"
    return replace(prompt, text=text)


def described(
    prompts: Sequence[Prompt],
    sampler: Sampler,
    *,
    question: str,
    max_response_tokens: int,
    batch_size: int,
) -> list[Prompt]:
    """Describe-and-respond: each prompt infused with the policy's own greedy description.

    `question` asks for the description; each image is described once, `batch_size`
    images at a time. A prompt that cannot be
    asked behind its description stays as it is.
    """
    asked = {prompt.image: replace(prompt, text=question) for prompt in prompts}
    settings = GenerateSettings(temperature=0.0, top_p=1.0, max_response_tokens=max_response_tokens)
    requests = [StepRequest(prompt=prompt) for prompt in asked.values()]
    answers = [
        answer
        for start in range(0, len(requests), batch_size)
        for answer in sampler.generate(requests[start : start + batch_size], settings)
    ]
    said = dict(zip(asked, (answer.text for answer in answers), strict=True))
    both = [(prompt, infused(prompt, said[prompt.image])) for prompt in prompts]
    return [asked if can_be_asked(asked, sampler) else prompt for prompt, asked in both]


def can_be_asked(prompt: Prompt, sampler: Sampler) -> bool:
    """Whether it leaves room for a response, and spells out none of the model's image markers."""
    try:
        return sampler.room(prompt) >= 1
    except DataError:
        return False
