"""A path of a tree as one response: its text, tokens and reward."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from csr.errors import NumericalError
from csr.types import FinishReason, ResponseTree, ScoredResponse, StepNode

ResponseReward = Literal["sum", "mean", "sum_over_depth_plus_one"]
"""How the steps' rewards become the response's. `sum_over_depth_plus_one` is the released
code's, whose path list counts the prompt as a node."""


def spoken_responses(tree: ResponseTree) -> list[tuple[str, str]]:
    """The id and text of each response that came to its end and says something.

    These are what a critic judges.
    """
    found = []
    for leaf in tree.leaves():
        text = "".join(node.step.text for node in tree.path(leaf.node_id)).strip()
        if leaf.step.finish_reason is FinishReason.EOS and text:
            found.append((leaf.node_id, text))
    return found


def path_to(leaf: StepNode, by_id: Mapping[str, StepNode]) -> list[StepNode]:
    """The nodes from the first sentence to `leaf`, of a tree's nodes by id."""
    path = [leaf]
    while (parent := path[-1].parent_id) is not None:
        path.append(by_id[parent])
    return path[::-1]


def response_of(
    tree: ResponseTree, path: Sequence[StepNode], how: ResponseReward
) -> ScoredResponse:
    """What the path says. NumericalError names the node whose stored reward is not finite."""
    steps = [node.step for node in path]
    sentences = [node for node in path if node.step.has_words]
    token_ids = tuple(token_id for step in steps for token_id in step.token_ids)
    return ScoredResponse(
        response_id=path[-1].node_id,
        prompt_id=tree.prompt.prompt_id,
        text="".join(step.text for step in steps).strip(),
        token_ids=token_ids,
        num_steps=len(sentences),
        num_tokens=len(token_ids),
        sum_logprob=math.fsum(p for step in steps for p in step.token_logprobs),
        reward=response_reward(path, how),
        breakdown=_mean_breakdown(sentences),
        finish_reason=steps[-1].finish_reason,
        origin=tree.origin,
    )


def response_reward(path: Sequence[StepNode], how: ResponseReward) -> float:
    """The reward of a whole response.

    A mean is over sentences, since stopping is none; an empty response has 0. In
    "sum_over_depth_plus_one" the depth is the number of sentences too.
    """
    for node in path:
        if not math.isfinite(node.score.reward):
            raise NumericalError(
                f"The stored reward of node {node.node_id!r} is {node.score.reward}: its response "
                "cannot be ranked. Sample or reward the tree anew."
            )
    sentences = [node for node in path if node.step.has_words]
    if how == "sum":
        return math.fsum(node.score.reward for node in path)
    total = math.fsum(node.score.reward for node in sentences)
    return total / (max(len(sentences), 1) if how == "mean" else len(sentences) + 1)


def _mean_breakdown(sentences: Sequence[StepNode]) -> dict[str, float]:
    names = dict.fromkeys(name for node in sentences for name in node.score.breakdown)
    parts = {
        name: [node.score.breakdown[name] for node in sentences if name in node.score.breakdown]
        for name in names
    }
    return {name: math.fsum(values) / len(values) for name, values in parts.items()}
