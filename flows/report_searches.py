"""How a report's search trees are drawn: places, and one scale of colours for all of them."""

from __future__ import annotations

from flows.report_data import ReportData, ReportTree
from flows.tree_map import TreeMap, tree_map
from flows.tree_view import NUM_COLOURS, TreeNode, colour_limit, colour_of, walk


class Searches:
    """The scale that all trees of a page share, so that colours mean the same in each."""

    def __init__(self, data: ReportData) -> None:
        trees = [tree for iteration in data.iterations for tree in iteration.trees]
        self.limit = colour_limit(
            [node.reward for tree in trees for node in walk(tree.roots) if not node.is_end]
        )
        self.are_there = bool(trees)

    def colour(self, reward: float) -> int:
        """The colour's number, as `colour_of`."""
        return colour_of(reward, self.limit)

    def map(self, tree: ReportTree) -> TreeMap:
        """The tree as a drawing."""
        return tree_map(tree.roots, self.limit)

    def path(self, tree: ReportTree, side: str) -> list[TreeNode]:
        """The sentences of the chosen or the rejected response, in order."""
        return [node for node in walk(tree.roots) if side in node.sides and not node.is_end]

    def depth(self, tree: ReportTree) -> int:
        """Levels of the tree."""
        return max((node.depth for node in walk(tree.roots)), default=0)

    @property
    def legend(self) -> list[tuple[int, float]]:
        """Each colour's number, and the reward in its middle."""
        steps = NUM_COLOURS - 1
        return [(n, self.limit * (2 * n / steps - 1)) for n in range(NUM_COLOURS)]
