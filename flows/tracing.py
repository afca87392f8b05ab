"""`csr trace`: one prompt's journey through an iteration, read back from the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from csr.errors import DataError
from csr.protocols import Json
from flows.home import open_store
from storage.rows import prompts_from_table
from storage.tables import read_table


def trace(home: Path, run_id: str, prompt_id: str, iteration: int | None = None) -> Json:
    """The prompt, its nodes, its responses and its pairs of one iteration.

    The latest iteration that sampled the prompt, unless one is named. DataError where the
    run does not know the prompt, or never sampled it.
    """
    store = open_store(home)
    store.run(run_id)
    prompts = [
        prompt
        for path in store.prompts_paths(run_id)
        for prompt in prompts_from_table(read_table(path, "prompts"))
    ]
    known = {prompt.prompt_id: prompt for prompt in prompts}
    if prompt_id not in known:
        raise DataError(
            f"run {run_id} has no prompt {prompt_id!r}. Its {len(known)} prompts begin with "
            f"{', '.join(list(known)[:3])}."
        )
    numbers = [n for n in store.iterations(run_id) if n > 0] if iteration is None else [iteration]
    for number in reversed(numbers):
        attempt = store.attempt(run_id, number)
        nodes = _rows(attempt.nodes, "nodes", prompt_id)
        if nodes:
            prompt = known[prompt_id]
            return {
                "iteration_id": f"{run_id}/{number:02d}",
                "prompt": {"prompt_id": prompt_id, "text": prompt.text, "image": prompt.image.uri},
                "nodes": nodes,
                "responses": _rows(attempt.responses, "responses", prompt_id),
                "pairs": _rows(attempt.pairs, "pairs", prompt_id),
                "demonstrations": _rows(attempt.demonstrations, "demonstrations", prompt_id),
            }
    raise DataError(
        f"the prompt {prompt_id!r} was not sampled in run {run_id} (iterations looked at: "
        f"{', '.join(map(str, numbers)) or 'none yet'}): each iteration takes a slice of the "
        "prompts."
    )


def tree(shape: Json) -> Any:
    """The shape of `trace` as a tree for people: kept steps bold, rewards beside them."""
    from rich.console import Group
    from rich.markup import escape
    from rich.tree import Tree

    prompt = shape["prompt"]
    root = Tree(f"{shape['iteration_id']}  {escape(prompt['text'])}\n{escape(prompt['image'])}")
    branches: dict[str | None, Any] = {None: root}
    for node in sorted(shape["nodes"], key=lambda row: row["depth"]):
        style = "bold" if node["kept"] else "dim"
        text = escape(node["text"].strip() or "(end of response)")
        branches[node["node_id"]] = branches[node["parent_id"]].add(
            f"[{style}]{node['reward']:+.2f}[/]  {text}  [dim]{_parts(node)}[/]"
        )
    lines = [
        f"{side}: {escape(pair[f'{side}_text'])}  [dim]reward {pair[f'{side}_reward']:+.2f}[/]"
        for pair in shape["pairs"]
        for side in ("chosen", "rejected")
    ]
    lines += [
        f"{row['kind']}: {escape(row['text'])}  [dim]weight {row['weight']:.2f}[/]"
        for row in shape["demonstrations"]
    ]
    return Group(root, *(lines or ["no pair"]))


def _parts(node: Json) -> str:
    evidence = {part["name"]: part["value"] for part in node["breakdown"]}
    shown = {"T": node["likelihood"], "I": node["image_similarity"], "PMI": evidence.get("pmi")}
    return " ".join(f"{name} {value:.2f}" for name, value in shown.items() if value is not None)


def _rows(path: Path, name: str, prompt_id: str) -> list[Json]:
    if not path.exists():
        return []
    rows = read_table(path, name).to_pylist()
    return [_plain(row) for row in rows if row["prompt_id"] == prompt_id]


def _plain(row: Json) -> Json:
    """Without embedded image bytes, which JSON cannot hold."""
    return {key: value for key, value in row.items() if key != "images"}
