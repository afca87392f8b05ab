"""`csr trace`: one prompt's journey through an iteration, read back from the store.

`flows.trace_view` draws it.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from csr.errors import DataError
from csr.protocols import Json
from csr.types import Prompt
from flows.home import open_store
from flows.truth import truth_of
from storage.rows import prompt_of_row
from storage.run_store import RunStore
from storage.schema import TABLES
from storage.tables import read_rows


def trace(home: Path, run_id: str, prompt_id: str, iteration: int | None = None) -> Json:
    """The prompt, its nodes, its responses and its pairs of one iteration.

    Each node has `false_mentions`: the words that the image contradicts; null where nobody can
    tell. `truth_problems` says why ground truth that the recipe names is not used. The latest
    iteration that sampled the prompt, unless one is named. DataError where the run does not know
    the prompt, or never sampled it.
    """
    store = open_store(home)
    record = store.run(run_id)
    prompt = _prompt(store, run_id, prompt_id)
    numbers = [n for n in store.iterations(run_id) if n > 0] if iteration is None else [iteration]
    for number in reversed(numbers):
        attempt = store.attempt(run_id, number)
        nodes = _rows(attempt.nodes, "nodes", prompt_id)
        if nodes:
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
                "truth_problems": list(truth.problems),
            }
    raise DataError(
        f"the prompt {prompt_id!r} was not sampled in run {run_id} (iterations looked at: "
        f"{', '.join(map(str, numbers)) or 'none yet'}): each iteration takes a slice of the "
        "prompts."
    )


def _prompt(store: RunStore, run_id: str, prompt_id: str) -> Prompt:
    """The prompt, of the last table that has it. DataError where none has."""
    paths = store.prompts_paths(run_id)
    found = [row for path in paths for row in _rows(path, "prompts", prompt_id)]
    if found:
        return prompt_of_row(found[-1], found[-1]["text"])
    known = dict.fromkeys(
        row["prompt_id"] for path in paths for row in read_rows(path, "prompts", ["prompt_id"])
    )
    raise DataError(
        f"run {run_id} has no prompt {prompt_id!r}. Its {len(known)} prompts begin with "
        f"{', '.join(list(known)[:3])}."
    )


def _rows(path: Path, name: str, prompt_id: str) -> list[Json]:
    """The prompt's rows alone, of a table that may be larger than memory; without embedded image
    bytes, which JSON cannot hold.
    """
    columns = [column.name for column in TABLES[name].columns if column.name != "images"]
    return read_rows(path, name, columns, [prompt_id])
