"""Trees of depth one, of whole responses that were sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from csr.pairing import PairingSettings, pair_trees
from csr.planning import PlannedCall, PlannedWork
from csr.types import (
    GeneratedResponse,
    PairingResult,
    Prompt,
    ResponseTree,
    SkipReason,
    StepCandidate,
    StepNode,
    StepScore,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledResponse:
    """A response and what its source notes of it."""

    response: GeneratedResponse
    parts: dict[str, float] = field(default_factory=dict)
    reward: float = 0.0


def tree_of_sampled(
    prompt: Prompt, sampled: Sequence[SampledResponse], *, policy: str, origin: str
) -> ResponseTree:
    """Each wording once, the first that said it; the others are counted."""
    first: dict[str, SampledResponse] = {}
    for each in sampled:
        first.setdefault(each.response.text.strip(), each)
    skipped = {SkipReason.DUPLICATE_SIBLING.value: len(sampled) - len(first)}
    return ResponseTree(
        prompt=prompt,
        policy=policy,
        origin=origin,
        nodes=tuple(
            _node(f"{prompt.prompt_id}/{number}", each)
            for number, each in enumerate(first.values())
        ),
        skipped={reason: count for reason, count in skipped.items() if count},
    )


def _node(node_id: str, sampled: SampledResponse) -> StepNode:
    response = sampled.response
    likelihood = math.fsum(response.token_logprobs) / max(len(response.token_logprobs), 1)
    return StepNode(
        node_id=node_id,
        parent_id=None,
        depth=1,
        step=StepCandidate(
            text=response.text,
            token_ids=response.token_ids,
            token_logprobs=response.token_logprobs,
            finish_reason=response.finish_reason,
        ),
        score=StepScore(
            reward=sampled.reward, breakdown={"likelihood": likelihood} | sampled.parts
        ),
        cumulative_reward=sampled.reward,
        kept=True,
    )


def planned_whole(
    *calls: PlannedCall, num_responses: float, response_tokens: float, **more: Any
) -> PlannedWork:
    """The work of a source whose trees are of depth one; `more` are fields of `PlannedWork`."""
    return PlannedWork(
        calls=calls,
        num_nodes=num_responses,
        node_tokens=response_tokens,
        num_responses=num_responses,
        lesson_tokens=response_tokens,
        **more,
    )


WHOLE_RESPONSES = PairingSettings(
    response_reward="sum",
    pairing="extremes",
    require_eos=True,
    clean_text=False,
    min_margin=0.0,
    min_margin_quantile=0.0,
    max_length_difference=1.0,
    max_repetition=1.0,
    max_steps=1,
)
"""How responses that were sampled whole are paired: the best against the worst, unfiltered."""


def pair_whole(trees: Sequence[ResponseTree], max_length_difference: float) -> PairingResult:
    """The best response of each prompt against its worst, where their lengths are near enough.

    The difference is in tokens, over the longer of the two.
    """
    settings = replace(WHOLE_RESPONSES, max_length_difference=max_length_difference)
    return pair_trees(trees, settings)
