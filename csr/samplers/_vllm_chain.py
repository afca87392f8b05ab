"""A step while vLLM samples it, in one round or several."""

from __future__ import annotations

from dataclasses import dataclass, field

from csr.samplers._shared import TokenLimits
from csr.types import FinishReason, StepCandidate, StepRequest


@dataclass(slots=True)
class Chain:
    """A candidate while it grows."""

    request: StepRequest
    index: int
    """Which of its request's candidates it is."""
    limits: TokenLimits
    """Before its first token."""
    prefix_text: str
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    reason: FinishReason | None = None

    @property
    def all_ids(self) -> tuple[int, ...]:
        """The response's token ids so far, its prefix included."""
        return (*self.request.prefix_token_ids, *self.token_ids)

    def candidate(self) -> StepCandidate:
        """The finished step."""
        assert self.reason is not None
        return StepCandidate(
            text=self.text,
            token_ids=tuple(self.token_ids),
            token_logprobs=tuple(self.logprobs),
            finish_reason=self.reason,
        )
