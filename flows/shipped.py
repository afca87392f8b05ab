"""The files that come with the package, from a checkout or from a wheel.

In a checkout `flows/files` holds links to them, where people look for them: `recipes/`, `deploy/`.
A wheel holds the files themselves.
"""

from __future__ import annotations

import difflib
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from csr.errors import ConfigError, shown
from flows import tables

if TYPE_CHECKING:
    from rich.table import Table

FILES = Path(__file__).resolve().parent / "files"
RECIPES = FILES / "recipes"
DEPLOY_FILES = FILES / "deploy"
DEMO_RECIPE = RECIPES / "tiny.yaml"


def is_checkout() -> bool:
    """Whether this code runs from a checkout, with its Makefile, or was installed."""
    return (FILES.parent.parent / "Makefile").exists()


def recipe_path(path: Path) -> Path:
    """The path, or the recipe of that name that comes with the package where there is no such file.

    So `recipes/tiny.yaml` means the same in a checkout and anywhere else.
    """
    shipped = RECIPES / path.name
    named_so = not path.is_absolute() and path.parts[:-1] in ((), ("recipes",))
    return shipped if named_so and not path.exists() and shipped.is_file() else path


def suggested(path: Path) -> str:
    """A question to append, with a blank before it, where a recipe beside it or of ours is near."""
    known = {each.stem: f"recipes/{each.name}" for each in RECIPES.glob("*.yaml")}
    known |= {each.stem: str(each) for each in path.parent.glob("*.yaml")}
    close = difflib.get_close_matches(path.stem, known, n=1)
    return f" Did you mean {known[close[0]]}?" if close else ""


def shipped_recipes() -> dict[str, str]:
    """File name -> what its header begins with, of every recipe that comes with the package."""
    return {path.name: _first_sentence(path) for path in sorted(RECIPES.glob("*.yaml"))}


def recipe_text(name: str) -> str:
    """The recipe of that name. ConfigError where none comes with the package."""
    known = {path.stem: path for path in RECIPES.glob("*.yaml")}
    path = known.get(name.removesuffix(".yaml"))
    if path is None:
        raise ConfigError(
            f"No recipe {shown(name)} comes with csr. Known: {', '.join(sorted(known))}."
        )
    return path.read_text(encoding="utf-8")


def table(shape: dict[str, dict[str, str]]) -> Table:
    """The recipes for people."""
    rows = [(f"recipes/{name}", sentence) for name, sentence in shape["recipes"].items()]
    title = f"Recipes that come with csr, in {RECIPES}"
    return tables.table(("recipe", "what it is"), rows, title)


def _first_sentence(recipe: Path) -> str:
    lines = recipe.read_text(encoding="utf-8").splitlines()
    header = itertools.takewhile(lambda line: line.startswith("#"), lines)
    text = " ".join(line.lstrip("# ") for line in header)
    return re.split(r"(?<=[.:]) ", text, maxsplit=1)[0].rstrip(".:")
