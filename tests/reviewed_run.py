"""A scripted run that waits for people: recipes for it, and the page of `csr review` on it."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.prefect_service import ROOT, command, end
from tests.scripted_run import write_recipe

ATTEMPT = "mine/01.1"


def write_reviewed_recipe(folder: Path, *, num_samples: int = 2, **critic: Any) -> Path:
    """Six prompts, so many responses each, and pairs of what people accept and refuse."""
    source = {
        "name": "illume",
        "makes": "pairs",
        "num_samples": num_samples,
        "temperatures": [1.0],
        "max_response_tokens": 40,
    }
    recipe = write_recipe(folder, num_iterations=1)
    document = yaml.safe_load(recipe.read_text())
    document |= {"source": source, "similarity": None, "critic": {"name": "human", **critic}}
    recipe.write_text(yaml.safe_dump(document, sort_keys=False))
    return recipe


@dataclass
class ServedPage:
    """`csr review` as a process of its own."""

    url: str
    """With the token."""
    process: subprocess.Popen[str]

    @property
    def address(self) -> str:
        return self.url.partition("/?")[0]


@contextlib.contextmanager
def served_page(
    home: Path, environment: dict[str, str], attempt: str = ATTEMPT, port: int = 0
) -> Iterator[ServedPage]:
    """Once it says where it is; ended at the end where it still runs."""
    process = subprocess.Popen(
        command("review", attempt, "--home", home, "--port", port, "--json"),
        env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "csr review ended without a URL"
        yield ServedPage(json.loads(line)["url"], process)
    finally:
        end(process)  # type: ignore[arg-type]
