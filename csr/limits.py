"""How long a response may be: what ends a path of a tree that does not end by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from csr.types import FinishReason, StepCandidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a response may be."""

    max_steps: int
    max_step_tokens: int
    max_response_tokens: int


def reaches_limit(steps: Sequence[StepCandidate], limits: Limits) -> bool:
    """Whether a response of these steps is as long as one may be.

    A step cut at `max_step_tokens` goes on as the next one; a shorter one that was cut
    filled the response or the model's context.
    """
    num_tokens = sum(len(step.token_ids) for step in steps)
    cut = steps[-1].finish_reason is FinishReason.LENGTH
    return (
        len(steps) >= limits.max_steps
        or num_tokens >= limits.max_response_tokens
        or (cut and len(steps[-1].token_ids) < limits.max_step_tokens)
    )
