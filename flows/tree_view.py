"""A search's tree as it is drawn: nested, best first, chosen and rejected paths marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from csr.protocols import Json
from csr.truthfulness import FalseMention

SIDES = ("chosen", "rejected")
NUM_COLOURS = 7
"""Odd, so that the middle one stands for a reward of about 0."""

Marks = Callable[[Json], tuple[FalseMention, ...] | None]
"""Row of `nodes` -> its text's false words, or None where nobody can tell. Its text is as stored:
white space around it is shown too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeNode:
    """One candidate sentence.

    Example: `TreeNode(label="0.2", text="A red circle.", depth=2, reward=0.81, total=1.3,
    kept=True, finish="step", parts={"likelihood": -0.4}, sides=("chosen",), ...)`
    """

    label: str
    """Child indices from the root."""
    text: str
    depth: int
    reward: float
    total: float
    """The search's score of the path that ends here."""
    kept: bool
    finish: str
    parts: Mapping[str, float]
    marks: tuple[FalseMention, ...] | None
    sides: tuple[str, ...]
    """Whose path it lies on: of `SIDES`, those of the prompt's first pair."""
    children: tuple[TreeNode, ...]
    num_left_out: int = 0
    """Pruned children that are not shown."""

    @property
    def is_end(self) -> bool:
        """Whether it says nothing, and only ends the response."""
        return not any(map(str.isalnum, self.text))


def nested(
    rows: Sequence[Json],
    pairs: Sequence[Json],
    marks: Marks = lambda row: None,
    max_nodes: int | None = None,
) -> tuple[TreeNode, ...]:
    """The first sentences of a prompt's rows of `nodes`, with all that follows them.

    Siblings stand best first. Where there are more than `max_nodes` rows, of each node's pruned
    children the best is shown, and every kept one and every one on a marked path.
    """
    sides = _sides(rows, pairs)
    crowded = max_nodes is not None and len(rows) > max_nodes
    children: dict[str | None, list[TreeNode]] = {}
    for row in sorted(rows, key=lambda row: row["depth"], reverse=True):
        below = children.pop(row["node_id"], [])
        shown = _uncrowded(below) if crowded else below
        node = TreeNode(
            label=row["node_id"].removeprefix(f"{row['prompt_id']}/"),
            text=row["text"],
            depth=row["depth"],
            reward=row["reward"],
            total=row["cumulative_reward"],
            kept=row["kept"],
            finish=row["finish_reason"],
            parts={part["name"]: part["value"] for part in row["breakdown"]},
            marks=marks(row),
            sides=sides.get(row["node_id"], ()),
            children=_best_first(shown),
            num_left_out=len(below) - len(shown),
        )
        children.setdefault(row["parent_id"], []).append(node)
    return _best_first(children.get(None, []))


def walk(nodes: Sequence[TreeNode]) -> Iterator[TreeNode]:
    """Every node, each before its children."""
    for node in nodes:
        yield node
        yield from walk(node.children)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a reward: as measured, and as it counts, where it is calibrated."""

    name: str
    raw: float
    calibrated: float | None = None


def reward_parts(parts: Mapping[str, float]) -> list[Part]:
    """A breakdown with each calibrated value beside its raw one."""
    ending = "_calibrated"
    return [
        Part(name.replace("_", " "), value, parts.get(f"{name}{ending}"))
        for name, value in parts.items()
        if not (name.endswith(ending) and name.removesuffix(ending) in parts)
    ]


def colour_limit(rewards: Sequence[float]) -> float:
    """The reward at which colours end, on both sides of 0: the largest in size, rounded up."""
    sizes = [abs(reward) for reward in rewards if math.isfinite(reward)]
    return max(math.ceil(max(sizes, default=0.0) * 2) / 2, 0.5)


def colour_of(reward: float, limit: float) -> int:
    """Which of `NUM_COLOURS`, from the worst, 0; the middle one where the reward is no number."""
    share = max(-1.0, min(1.0, reward / limit)) if math.isfinite(reward) else 0.0
    return round((share + 1) / 2 * (NUM_COLOURS - 1))


def _sides(rows: Sequence[Json], pairs: Sequence[Json]) -> dict[str, tuple[str, ...]]:
    """Node id -> the sides of the first pair whose path it lies on."""
    parents = {row["node_id"]: row["parent_id"] for row in rows}
    sides: dict[str, tuple[str, ...]] = {}
    for side in SIDES if pairs else ():
        cursor = pairs[0][f"{side}_response_id"]
        while cursor in parents:
            sides[cursor] = (*sides.get(cursor, ()), side)
            cursor = parents[cursor]
    return sides


def _best_first(nodes: Sequence[TreeNode]) -> tuple[TreeNode, ...]:
    return tuple(sorted(nodes, key=lambda node: -node.reward))


def _uncrowded(nodes: Sequence[TreeNode]) -> list[TreeNode]:
    pruned = [node for node in _best_first(nodes) if not (node.kept or node.sides)]
    return [node for node in nodes if node.kept or node.sides or node is pruned[0]]
