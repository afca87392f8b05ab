"""Which searches a run's report draws, read from the store."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from csr.protocols import Json
from csr.truthfulness import FalseMention
from flows.report_data import ReportTree
from flows.spreading import spread
from flows.tree_view import SIDES, nested, walk
from flows.truth import Truth
from storage.attempt import AttemptDir
from storage.run_store import RunStore
from storage.tables import read_rows

MAX_TREE_NODES = 90
"""A larger tree is drawn without most of its pruned nodes."""

_COLUMNS = [
    "prompt_id", "node_id", "parent_id", "depth", "text", "finish_reason", "reward", "breakdown",
    "cumulative_reward", "kept",
]  # fmt: skip
_PROMPT = ["prompt_id", "text", "image_uri"]
_PAIR_COLUMNS = [
    "prompt_id", "margin", "chosen_response_id", "rejected_response_id", "chosen_reward",
    "rejected_reward",
]  # fmt: skip


def trees_of(
    store: RunStore, attempt: AttemptDir, truth: Truth, count: int
) -> tuple[list[ReportTree], int]:
    """`count` trees at most, and how many there are.

    Those with a pair come first, from the widest to the narrowest margin; where no pair comes from
    the trees, the first ones that were sampled.
    """
    sampled = dict.fromkeys(
        row["prompt_id"] for row in read_rows(attempt.nodes, "nodes", ["prompt_id"])
    )
    pairs = _by_prompt(read_rows(attempt.pairs, "pairs", _PAIR_COLUMNS))
    paired = sorted(
        (name for name in pairs if name in sampled),
        key=lambda name: (-pairs[name][0]["margin"], name),
    )
    names = paired or list(sampled)
    shown = [names[place] for place in spread(len(names), count)]
    rows = _by_prompt(read_rows(attempt.nodes, "nodes", _COLUMNS, shown))
    asked = store.prompts_of(attempt.id.run_id, attempt.id.iteration)
    prompts = {row["prompt_id"]: row for row in read_rows(asked, "prompts", _PROMPT, shown)}
    trees = [
        _tree(prompts[name], rows[name], pairs.get(name, []), truth)
        for name in shown
        if name in prompts
    ]
    return trees, len(sampled)


def _by_prompt(rows: Sequence[Json]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for row in rows:
        found.setdefault(row["prompt_id"], []).append(row)
    return found


def _marks(truth: Truth, image: str, row: Json) -> tuple[FalseMention, ...] | None:
    return truth.marks(row["text"], image, row["prompt_id"])


def _tree(prompt: Json, rows: Sequence[Json], pairs: Sequence[Json], truth: Truth) -> ReportTree:
    image = prompt["image_uri"]
    marks = functools.partial(_marks, truth, image)
    roots = nested(rows, pairs, marks, MAX_TREE_NODES)
    return ReportTree(
        prompt_id=prompt["prompt_id"],
        prompt=prompt["text"],
        image_path=image,
        roots=roots,
        num_nodes=len(rows),
        num_kept=sum(row["kept"] for row in rows),
        num_left_out=len(rows) - sum(1 for _ in walk(roots)),
        rewards={side: pairs[0][f"{side}_reward"] for side in SIDES} if pairs else {},
        num_pairs=len(pairs),
    )
