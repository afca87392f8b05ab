"""Response trees as rows of the `nodes` table, and back, losing nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from csr.errors import DataError
from csr.types import (
    FinishReason,
    Prompt,
    ResponseTree,
    StepCandidate,
    StepNode,
    StepScore,
)
from storage.rows import Row, parts_from_rows, parts_to_rows
from storage.tables import make_table

NAMED_PARTS = (
    "likelihood",
    "image_similarity",
    "redundancy",
    "likelihood_calibrated",
    "image_similarity_calibrated",
)
"""Parts of a reward that have a column of their own in `nodes`, for convenience."""


def trees_to_table(trees: Sequence[ResponseTree], *, iteration: int) -> pa.Table:
    """The `nodes` table. A tree's `skipped` counts belong in the manifest."""
    rows = [_node_row(tree, node, iteration) for tree in trees for node in tree.nodes]
    return make_table("nodes", rows)


def trees_from_table(
    table: pa.Table,
    prompts: Sequence[Prompt],
    *,
    policy: str = "",
    origin: str = "",
    skipped: Mapping[str, Mapping[str, int]] | None = None,
) -> list[ResponseTree]:
    """One tree for each prompt, in prompt order, nodes in stored order.

    A prompt without rows gets an empty tree of `policy` and `origin`. `skipped` maps
    a prompt id to its counts. DataError where rows belong to no given prompt.
    """
    rows: dict[str, list[Row]] = {}
    for row in table.to_pylist():
        rows.setdefault(row["prompt_id"], []).append(row)
    _refuse_strangers(set(rows) - {prompt.prompt_id for prompt in prompts})
    trees = []
    for prompt in prompts:
        mine = rows.get(prompt.prompt_id, [])
        tree = ResponseTree(
            prompt=prompt,
            policy=mine[0]["policy"] if mine else policy,
            origin=mine[0]["origin"] if mine else origin,
            nodes=tuple(_node(row) for row in mine),
            skipped=dict((skipped or {}).get(prompt.prompt_id, {})),
        )
        trees.append(tree)
    return trees


def _refuse_strangers(prompt_ids: set[str]) -> None:
    if prompt_ids:
        raise DataError(
            f"the nodes table holds prompts that the run does not: {sorted(prompt_ids)[:5]}. It "
            "comes from another run; make a new attempt of this iteration."
        )


def _node_row(tree: ResponseTree, node: StepNode, iteration: int) -> Row:
    step, score = node.step, node.score
    return {
        "iteration": iteration,
        "prompt_id": tree.prompt.prompt_id,
        "node_id": node.node_id,
        "parent_id": node.parent_id,
        "depth": node.depth,
        "text": step.text,
        "token_ids": list(step.token_ids),
        "token_logprobs": list(step.token_logprobs),
        "sum_logprob": float(sum(step.token_logprobs)),
        "num_tokens": len(step.token_ids),
        "finish_reason": step.finish_reason.value,
        "reward": score.reward,
        **{name: score.breakdown.get(name) for name in NAMED_PARTS},
        "breakdown": parts_to_rows(score.breakdown),
        "cumulative_reward": node.cumulative_reward,
        "kept": node.kept,
        "policy": tree.policy,
        "origin": tree.origin,
    }


def _node(row: Row) -> StepNode:
    return StepNode(
        node_id=row["node_id"],
        parent_id=row["parent_id"],
        depth=row["depth"],
        step=StepCandidate(
            text=row["text"],
            token_ids=tuple(row["token_ids"]),
            token_logprobs=tuple(row["token_logprobs"]),
            finish_reason=FinishReason(row["finish_reason"]),
        ),
        score=StepScore(reward=row["reward"], breakdown=parts_from_rows(row["breakdown"])),
        cumulative_reward=row["cumulative_reward"],
        kept=row["kept"],
    )
