"""Trees as they are drawn: order, marks, colours, places."""

from typing import Any

import pytest

from csr.truthfulness import FalseMention
from flows.spreading import spread
from flows.tree_map import COLUMN_WIDTH, ROOT_WIDTH, ROW_HEIGHT, tree_map
from flows.tree_view import Part, colour_limit, colour_of, nested, reward_parts, walk
from storage.trees import trees_to_table
from tests.trees import make_tree

REWARDS = {"0": 1.0, "1": 2.0, "0.0": -1.0, "0.1": 0.5, "1.0": 0.25, "0.1/": 0.0, "1.0/": 0.0}


def rows(rewards: dict[str, float] = REWARDS) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = trees_to_table([make_tree(rewards)], iteration=1).to_pylist()
    return found


def pair(chosen: str, rejected: str) -> dict[str, str]:
    return {"chosen_response_id": chosen, "rejected_response_id": rejected}


def test_the_best_stands_first_and_everything_is_there() -> None:
    stored = rows()
    tree = nested(stored, [])
    assert [node.label for node in walk(tree)] == ["1", "1.0", "1.0.9", "0", "0.1", "0.1.9", "0.0"]
    assert [node.is_end for node in walk(tree)] == [False, False, True, False, False, True, False]
    assert {node.sides for node in walk(tree)} == {()}


def test_the_paths_of_the_first_pair_are_marked() -> None:
    pairs = [pair("42/1.0.9", "42/0.1.9"), pair("42/0.0", "42/1")]
    sides = {node.label: node.sides for node in walk(nested(rows(), pairs))}
    chosen, rejected = ("chosen",), ("rejected",)
    assert sides == {
        "1": chosen, "1.0": chosen, "1.0.9": chosen,
        "0": rejected, "0.1": rejected, "0.1.9": rejected, "0.0": (),
    }  # fmt: skip
    shared = nested(rows(), [pair("42/0.1.9", "42/0.0")])
    assert {n.label: n.sides for n in walk(shared)}["0"] == ("chosen", "rejected")
    assert {n.sides for n in walk(nested(rows(), [pair("elsewhere", "42/x")]))} == {()}


def test_a_crowded_tree_leaves_out_pruned_nodes_and_counts_them() -> None:
    crowd = {"0": 1.0} | {f"0.{n}": n / 10 for n in range(1, 9)}
    stored = rows(crowd)
    kept = {"42/0", "42/0.2", "42/0.5"}
    for row in stored:
        row["kept"] = row["node_id"] in kept
    [root] = nested(stored, [pair("42/0.3", "42/0.2")], max_nodes=8)
    assert [child.label for child in root.children] == ["0.8", "0.5", "0.3", "0.2"]
    assert root.num_left_out == 4
    [root] = nested(stored, [pair("42/0.3", "42/0.2")], max_nodes=9)
    assert (len(root.children), root.num_left_out) == (8, 0)


def test_false_words_are_looked_for_in_each_sentence() -> None:
    mark = FalseMention(kind="object", name="x", start=0, end=1)
    tree = nested(rows(), [], lambda row: (mark,) if row["depth"] == 1 else None)
    assert {node.marks for node in walk(tree) if node.depth == 1} == {(mark,)}
    assert {node.marks for node in walk(tree) if node.depth == 2} == {None}


def test_parts_stand_beside_what_they_count() -> None:
    parts = {"likelihood": -0.5, "likelihood_calibrated": 0.2, "redundancy": 0.1,
             "odd_calibrated": 3.0}  # fmt: skip
    assert reward_parts(parts) == [
        Part("likelihood", -0.5, 0.2), Part("redundancy", 0.1), Part("odd calibrated", 3.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rewards", "limit"),
    [([], 0.5), ([0.1, -0.2], 0.5), ([1.2, -1.4], 1.5), ([2.0], 2.0), ([float("nan"), 0.9], 1.0)],
)
def test_colours_end_at_the_largest_reward(rewards: list[float], limit: float) -> None:
    assert colour_limit(rewards) == limit


def test_colours_are_even_around_zero() -> None:
    rewards = [-9.0, -1.5, -1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0, 1.5, 9.0, float("nan")]
    assert [colour_of(r, 1.5) for r in rewards] == [0, 0, 1, 2, 3, 3, 3, 4, 5, 6, 6, 3]


def test_a_leaf_has_a_row_and_a_sentence_a_column() -> None:
    drawn = tree_map(nested(rows(), [pair("42/1.0.9", "42/1.0.9")]), limit=2.0)
    places = {box.node.label: (box.x, box.y) for box in drawn.nodes}
    first, second, third = (ROOT_WIDTH + n * COLUMN_WIDTH for n in range(3))
    rows_at = [(n + 0.5) * ROW_HEIGHT for n in range(3)]
    assert places == {
        "1": (first, rows_at[0]), "1.0": (second, rows_at[0]), "1.0.9": (third, rows_at[0]),
        "0": (first, 1.5 * ROW_HEIGHT + ROW_HEIGHT / 2), "0.1": (second, rows_at[1]),
        "0.1.9": (third, rows_at[1]), "0.0": (second, rows_at[2]),
    }  # fmt: skip
    assert (drawn.width, drawn.height) == (ROOT_WIDTH + 3 * COLUMN_WIDTH, 3 * ROW_HEIGHT)
    assert [box.number for box in drawn.nodes] == list(range(7))
    kinds = [link.kind for link in drawn.links]
    assert kinds.count("chosen") == kinds.count("rejected") == 3
    assert kinds[:4] == ["kept"] * 4  # marked paths are drawn last, on top
    assert tree_map([], limit=1.0).nodes == ()


def test_spread_reaches_both_ends() -> None:
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(3, 5) == [0, 1, 2]
    assert spread(9, 1) == [0]
    assert spread(9, 0) == spread(0, 3) == []
