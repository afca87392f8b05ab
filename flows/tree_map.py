"""Geometry of a tree drawn from left to right; `templates/report_trees.html.j2` draws it as SVG.

One column a sentence, one row a leaf. Coordinates are SVG user units, which the page shows as
pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.tree_view import SIDES, TreeNode, colour_of

ROOT_WIDTH = 26
COLUMN_WIDTH = 74
ROW_HEIGHT = 22
BOX_WIDTH, BOX_HEIGHT = 46, 17
END_SIZE = 10
"""Side of the square that stands for an end of response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapNode:
    """One box: its left edge, its middle's height, and what is in it."""

    x: float
    y: float
    node: TreeNode
    colour: int
    number: int
    """Place in the order of `tree_view.walk`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapLink:
    """The curve from a parent to a child. `path` is SVG path data."""

    path: str
    kind: str
    """ "kept", "pruned", or the side of the pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeMap:
    """A tree ready to be drawn."""

    width: int
    height: int
    root_y: float
    nodes: tuple[MapNode, ...]
    links: tuple[MapLink, ...]


def tree_map(roots: Sequence[TreeNode], limit: float) -> TreeMap:
    """Places for every node; colours end at a reward of `limit`."""
    nodes: list[MapNode] = []
    links: list[MapLink] = []
    num_rows = 0

    def place(node: TreeNode) -> float:
        nonlocal num_rows
        number = len(nodes)
        nodes.append(MapNode(x=0, y=0, node=node, colour=0, number=number))
        x = ROOT_WIDTH + (node.depth - 1) * COLUMN_WIDTH
        heights = [place(child) for child in node.children]
        if heights:
            y = (heights[0] + heights[-1]) / 2
        else:
            y = (num_rows + 0.5) * ROW_HEIGHT
            num_rows += 1
        start = x + (END_SIZE if node.is_end else BOX_WIDTH)
        for child, height in zip(node.children, heights, strict=True):
            links.extend(_links(start, y, x + COLUMN_WIDTH, height, child))
        colour = colour_of(node.reward, limit)
        nodes[number] = MapNode(x=x, y=y, node=node, colour=colour, number=number)
        return y

    heights = [place(node) for node in roots]
    root_y = (heights[0] + heights[-1]) / 2 if heights else 0.0
    for node, height in zip(roots, heights, strict=True):
        links.extend(_links(10, root_y, ROOT_WIDTH, height, node))
    depth = max((each.node.depth for each in nodes), default=1)
    return TreeMap(
        width=ROOT_WIDTH + depth * COLUMN_WIDTH,
        height=num_rows * ROW_HEIGHT,
        root_y=root_y,
        nodes=tuple(nodes),
        links=tuple(sorted(links, key=lambda link: link.kind in SIDES)),
    )


def _links(x0: float, y0: float, x1: float, y1: float, child: TreeNode) -> list[MapLink]:
    """One curve, or one for each side whose path it lies on, beside each other."""
    kinds = child.sides or ("kept" if child.kept else "pruned",)
    middle = (x0 + x1) / 2
    apart = 3.0 if len(kinds) > 1 else 0.0
    links = []
    for place, kind in enumerate(kinds):
        shift = (place - (len(kinds) - 1) / 2) * apart
        a, b = y0 + shift, y1 + shift
        links.append(
            MapLink(path=f"M{x0:g} {a:g}C{middle:g} {a:g} {middle:g} {b:g} {x1:g} {b:g}", kind=kind)
        )
    return links
