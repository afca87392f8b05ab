"""What the verbs of the `csr` command share: their options, and how they answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token

from csr.errors import ConfigError

WIDTH_WITHOUT_TERMINAL = 200
"""Characters."""


def _named_folder(kind: Any, tokens: Sequence[Token]) -> Path:
    """An empty name, as an unset shell variable leaves it, would be the working directory."""
    name = tokens[0].value
    if not name.strip():
        raise ConfigError("--home is empty. Name a folder for the runs, or leave it out.")
    return Path(name)


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every verb."""

    home: Annotated[Path, Parameter(env_var="CSR_HOME", converter=_named_folder)] = Path("runs")
    """Folder that holds all runs."""
    json: Annotated[bool, Parameter(negative="")] = False
    """Print one JSON object on standard output; everything else goes to standard error."""


@Parameter(name="*")
@dataclass(frozen=True)
class RecipeOptions:
    """Options of the verbs that read a recipe."""

    set: Annotated[tuple[str, ...], Parameter(consume_multiple=False, negative="")] = ()
    """Override one setting, as in `--set reward.image_weight=0.5`; may be repeated."""


def answer(shape: Any, table: Callable[[Any], Any], common: Common) -> int:
    """One JSON object, or what `table` makes of it for people."""
    return print_json(shape) if common.json else print_table(table(shape))


def print_json(shape: Any) -> int:
    """One object on one line."""
    print(json.dumps(shape, default=str), flush=True)  # a reader at a pipe may wait for it
    return 0


def print_table(*renderables: Any) -> int:
    """Whatever rich can draw."""
    from rich.console import Console

    console = Console()
    # Without a terminal there is no width to fit: a narrow table would lose text.
    console.width = console.width if console.is_terminal else WIDTH_WITHOUT_TERMINAL
    console.print(*renderables)
    return 0


def say(value: object) -> int:
    """One plain line."""
    print(value, flush=True)
    return 0
