"""`csr trace`: one prompt's journey through an iteration, read back from the store.

`flows.trace_view` draws it.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from csr.errors import DataError
from csr.protocols import Json
from flows.home import open_store
from flows.truth import truth_of
from storage.rows import prompts_from_table
from storage.tables import read_table


def trace(home: Path, run_id: str, prompt_id: str, iteration: int | None = None) -> Json:
    """The prompt, its nodes, its responses and its pairs of one iteration.

    Each node has `false_mentions`: the words that the image contradicts; null where nobody can
    tell. The latest iteration that sampled the prompt, unless one is named. DataError where the
    run does not know the prompt, or never sampled it.
    """
    store = open_store(home)
    record = store.run(run_id)
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
            truth = truth_of(record.config)
            for node in nodes:
                marks = truth.marks(node["text"], prompt.image.uri, prompt_id)
                node["false_mentions"] = None if marks is None else list(map(asdict, marks))
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


def _rows(path: Path, name: str, prompt_id: str) -> list[Json]:
    if not path.exists():
        return []
    rows = read_table(path, name).to_pylist()
    return [_plain(row) for row in rows if row["prompt_id"] == prompt_id]


def _plain(row: Json) -> Json:
    """Without embedded image bytes, which JSON cannot hold."""
    return {key: value for key, value in row.items() if key != "images"}
