"""What a critic is shown of a tree."""

from __future__ import annotations

from csr.types import FinishReason, ResponseTree


def spoken_responses(tree: ResponseTree) -> list[tuple[str, str]]:
    """The id and text of each response that came to its end and says something."""
    found = []
    for leaf in tree.leaves():
        text = "".join(node.step.text for node in tree.path(leaf.node_id)).strip()
        if leaf.step.finish_reason is FinishReason.EOS and text:
            found.append((leaf.node_id, text))
    return found
