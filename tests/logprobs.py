"""How closely log-probabilities agree, of two engines or of one engine asked twice."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from csr.types import GeneratedResponse, Prompt, StepCandidate

NATS = 1e-4
"""Agreement of log-probabilities in float32. What an engine has cached moves the last bits."""


def largest_difference(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> float:
    pairs = zip(left, right, strict=True)
    return max(abs(a - b) for one, two in pairs for a, b in zip(one, two, strict=True))


def assert_scored_alike(
    prompts: Sequence[Prompt], groups: list[list[StepCandidate]], *scorers: Any
) -> None:
    rows = [(p, c) for p, group in zip(prompts, groups, strict=True) for c in group]
    for scorer in scorers:
        scores = scorer.score([p for p, _ in rows], [c.token_ids for _, c in rows])
        assert largest_difference(scores, [c.token_logprobs for _, c in rows]) < NATS


def assert_same_responses(
    left: Sequence[GeneratedResponse], right: Sequence[GeneratedResponse]
) -> None:
    """The same in all but the last bits of their log-probabilities."""
    without = [[replace(each, token_logprobs=()) for each in side] for side in (left, right)]
    assert without[0] == without[1]
    values = [[each.token_logprobs for each in side] for side in (left, right)]
    assert largest_difference(*values) < NATS
