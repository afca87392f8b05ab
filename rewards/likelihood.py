"""How likely the policy itself finds a step: the likelihood part (R_T) of the reward.

It is read off the log-probabilities that came with the sampled tokens, so it costs
no further pass through the model.
"""

from __future__ import annotations

import math
from typing import Literal

from csr.types import StepCandidate

LikelihoodKind = Literal["mean_logprob", "product"]
"""`mean_logprob`: mean token log-probability in nats, at most 0, whatever the length.
`product`: the product of the token probabilities in [0, 1] (arXiv:2405.14622, section 3.1),
which shrinks with every further token."""


def likelihood(step: StepCandidate, kind: LikelihoodKind) -> float:
    """R_T of one step. A bare end of response has its own value: that of its EOS token."""
    assert step.token_logprobs, "a step has at least one token"
    total = math.fsum(step.token_logprobs)
    if kind == "product":
        return math.exp(total)
    return total / len(step.token_logprobs)
