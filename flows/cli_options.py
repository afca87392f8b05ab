"""What the verbs of the `csr` command share: groups, options, examples, and how they answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter, Token

from csr.errors import ConfigError
from flows.completing import DEFAULT_HOME, iteration_ids, run_ids

WIDTH_WITHOUT_TERMINAL = 200
"""Characters."""

# The groups of `csr --help`, in the order in which a newcomer needs them.
START = Group("First steps", sort_key=1)
WORK = Group("Run", sort_key=2)
LOOK = Group("Look", sort_key=3)
HAND_OVER = Group("Hand over", sort_key=4)
SERVE = Group("Unattended", sort_key=5)
SHELL = Group("The command itself", sort_key=6)
COMMON = Group("Common options", sort_key=9)

RunId = Annotated[str, Parameter(completer=run_ids)]
"""A run, such as `tiny-b0f2`."""
IterationId = Annotated[str, Parameter(completer=iteration_ids)]
"""An iteration, `tiny-b0f2/02`, or one attempt of it, `tiny-b0f2/02.1`."""
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""Off unless it is given."""


def examples(*lines: str) -> str:
    """The end of a command's help. Each line is a command that works as it stands, with a remark
    behind `#` where it needs one.
    """
    return "**Examples**\n\n```sh\n" + "\n".join(lines) + "\n```"


def _named_folder(kind: Any, tokens: Sequence[Token]) -> Path:
    """An empty name, as an unset shell variable leaves it, would be the working directory."""
    name = tokens[0].value
    if not name.strip():
        raise ConfigError("--home is empty. Name a folder for the runs, or leave it out.")
    return Path(name)


@Parameter(name="*", group=COMMON)
@dataclass(frozen=True)
class Common:
    """Options of every verb."""

    home: Annotated[Path, Parameter(env_var="CSR_HOME", converter=_named_folder)] = DEFAULT_HOME
    """Folder that holds all runs."""
    json: Flag = False
    """Print one JSON object on standard output; everything else goes to standard error."""


@Parameter(name="*")
@dataclass(frozen=True)
class RecipeOptions:
    """Options of the verbs that read a recipe."""

    set: Annotated[
        tuple[str, ...], Parameter(consume_multiple=False, negative="", show_default=False)
    ] = ()
    """Override one of its settings, as in `--set reward.image_weight=0.5`; may be repeated."""


def absolute_home(common: Common) -> str:
    """The home as a flow is told of it, which may run elsewhere."""
    from flows.home import open_store

    return str(open_store(common.home).home)


def answer(shape: Any, table: Callable[[Any], Any], common: Common) -> int:
    """One JSON object, or what `table` makes of it for people."""
    return print_json(shape) if common.json else print_table(table(shape))


def print_json(shape: Any) -> int:
    """One object on one line."""
    print(json.dumps(shape, default=str), flush=True)  # a reader at a pipe may wait for it
    return 0


def print_table(*renderables: Any) -> int:
    """Whatever rich can draw; a plain string as it is written."""
    from rich.console import Console

    from flows.tables import plain

    console = Console()
    # Without a terminal there is no width to fit: a narrow table would lose text.
    console.width = console.width if console.is_terminal else WIDTH_WITHOUT_TERMINAL
    console.print(*(plain(r) if isinstance(r, str) else r for r in renderables))
    return 0


def say(value: object) -> int:
    """One plain line."""
    print(value, flush=True)
    return 0
