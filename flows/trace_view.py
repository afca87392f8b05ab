"""The tree of `csr trace` in a terminal. Whatever a colour says, a word or a sign says too."""

from __future__ import annotations

from typing import Any

from csr.protocols import Json
from csr.truthfulness import FalseMention
from flows.inert import on_terminal
from flows.marking import pieces
from flows.tree_view import TreeNode, colour_limit, colour_of, nested, reward_parts

COLOURS = ("#b35806", "#e08214", "#fdb863", "#b8bcc4", "#92c5de", "#4393c3", "#2f7fd0")
"""From the worst reward to the best; told apart on dark and on light ground, and by who is
colour-blind."""

_SIDE_STYLES = {"chosen": "bold cyan", "rejected": "bold yellow"}


def tree(shape: Json) -> Any:
    """The shape of `tracing.trace` as a tree for people: best first, pruned ones dim."""
    from rich.console import Group
    from rich.text import Text
    from rich.tree import Tree

    prompt = shape["prompt"]
    roots = nested(shape["nodes"], shape["pairs"], _marks)
    limit = colour_limit([row["reward"] for row in shape["nodes"]])
    text, image = on_terminal(prompt["text"]), on_terminal(prompt["image"])
    root = Tree(Text(f"{shape['iteration_id']}  {text}\n{image}"))
    open_nodes = [(root, node) for node in reversed(roots)]
    while open_nodes:
        branch, node = open_nodes.pop()
        grown = branch.add(_line(node, limit))
        open_nodes += [(grown, child) for child in reversed(node.children)]
    return Group(root, "", *_key(shape), *_outcome(shape))


def _marks(row: Json) -> tuple[FalseMention, ...] | None:
    found = row["false_mentions"]
    return None if found is None else tuple(FalseMention(**each) for each in found)


def _line(node: TreeNode, limit: float) -> Any:
    """E.g. "+1.34  A red circle.  chosen  likelihood -0.13 -> -0.09, ..., path +1.34"."""
    from rich.text import Text

    line = Text()
    if node.is_end:
        ended = "end of response" if node.finish == "eos" else "nothing is said"
        line.append(f"({ended})  path {node.total:+.2f}", "bold" if node.kept else "dim")
    else:
        colour = COLOURS[colour_of(node.reward, limit)]
        line.append(f"{node.reward:+.2f}", f"bold {colour}" if node.kept else colour)
        line.append("  ")
        line.append_text(_said(node))
    if not node.kept:
        line.append("  pruned", "dim italic")
    for side in node.sides:
        line.append(f"  {side}", _SIDE_STYLES[side])
    if not node.is_end:
        line.append(f"  {_breakdown(node)}", "dim")
    return line


def _said(node: TreeNode) -> Any:
    """The sentence, its false words underlined and followed by what is wrong with them."""
    from rich.text import Text

    said = Text(style="" if node.kept else "dim")
    for piece in pieces(on_terminal(node.text), node.marks):
        if piece.wrong:
            said.append(piece.text, "bold underline red")
            said.append(f" [{on_terminal(piece.told)}]", "red")
        else:
            said.append(piece.text)
    return said


def _breakdown(node: TreeNode) -> str:
    """Raw parts, and behind an arrow as they count."""
    shown = []
    for part in reward_parts(node.parts):
        counted = "" if part.calibrated is None else f" -> {part.calibrated:+.2f}"
        shown.append(f"{part.name} {part.raw:.2f}{counted}")
    return ", ".join([*shown, f"path {node.total:+.2f}"])


def _key(shape: Json) -> list[Any]:
    """How to read it."""
    from rich.text import Text

    known = any(row["false_mentions"] is not None for row in shape["nodes"])
    marked = (
        "Brackets behind words tell what is not true of the image."
        if known
        else "Nothing says what the image shows, so no word is marked."
    )
    unused = [
        Text(f"Ground truth is not used: {on_terminal(problem)}", "yellow")
        for problem in shape["truth_problems"]
    ]
    return [
        *unused,
        Text(
            "First a sentence's reward, then its raw parts and, behind an arrow, what they count "
            f"calibrated; path is the search's score up to there. {marked}",
            "dim",
        ),
    ]


def _outcome(shape: Json) -> list[Any]:
    """The pairs and the demonstrations that came of it."""
    from rich.text import Text

    lines = [
        Text.assemble(
            (f"{side}: ", _SIDE_STYLES[side]),
            on_terminal(pair[f"{side}_text"]),
            (f"  reward {pair[f'{side}_reward']:+.2f}", "dim"),
        )
        for pair in shape["pairs"]
        for side in ("chosen", "rejected")
    ]
    lines += [
        Text.assemble(
            f"{row['kind']}: {on_terminal(row['text'])}", (f"  weight {row['weight']:.2f}", "dim")
        )
        for row in shape["demonstrations"]
    ]
    return lines or [Text("no pair")]
