"""What ends a path of a tree that does not end by itself."""

from __future__ import annotations

from collections.abc import Sequence

from csr.types import FinishReason, StepCandidate


def reaches_limit(steps: Sequence[StepCandidate], max_steps: int) -> bool:
    """Whether nothing may follow these steps although the response has not ended.

    Where its tokens ran out, the sampler said LENGTH; a step that was CUT goes on as the next.
    """
    return len(steps) >= max_steps or steps[-1].finish_reason is FinishReason.LENGTH
