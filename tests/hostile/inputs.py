"""The inputs of a scripted run, with good prompts to which a test adds its own."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hostile.cases import Case
from tests.scripted_run import NUM_TRAIN, Answer, Csr, write_recipe


def names(case: Case) -> str:
    """How pytest calls a case."""
    return case.name


def bad_share(share: float) -> tuple[str, ...]:
    """Settings that let a run go on without its bad records."""
    return ("--set", "data.on_bad_record=skip", "--set", f"data.max_bad_share={share}")


@dataclass(frozen=True)
class Inputs:
    """A folder with everything that a run reads."""

    folder: Path
    num_good = NUM_TRAIN

    @property
    def home(self) -> Path:
        return self.folder.parent / "home"

    @property
    def recipe(self) -> Path:
        return self.folder / "scripted.yaml"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def prompt_file(self) -> Path:
        return self.folder / "train.jsonl"

    @property
    def policy(self) -> Path:
        return self.folder / "policy"

    @property
    def plain_command(self) -> tuple[object, ...]:
        """A run as the recipe says."""
        return ("run", self.recipe, "--home", self.home, "--run-id", "run")

    @property
    def command(self) -> tuple[object, ...]:
        """A short run of all prompts."""
        return (
            *self.plain_command,
            "--set", "num_iterations=1", "--set", "data.num_prompts_per_iteration=200",
            "--set", "shard_size=100", "--set", "source.max_steps=2",
        )  # fmt: skip

    def prompts(self, *records: dict[str, Any]) -> Path:
        """Add records behind the good ones."""
        lines = [json.dumps(record) for record in records]
        self.prompt_file.write_text(self.prompt_file.read_text() + "\n".join(lines) + "\n")
        return self.prompt_file

    def check_refused(self, csr: Csr, words: str, *arguments: object) -> Answer:
        """`csr run` says one error that holds the words, exits with 2, and writes nothing."""
        answer = csr(*self.plain_command, *arguments)
        assert answer.status == 2, answer.err
        assert answer.out == ""
        assert answer.err.startswith("error: ")
        assert words in answer.err
        assert "Traceback" not in answer.err
        assert not self.home.exists()
        return answer


def make_inputs(folder: Path) -> Inputs:
    """All good."""
    write_recipe(folder)
    return Inputs(folder)
