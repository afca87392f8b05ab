"""Builds the embedded world that a recipe asks for, once a machine, and puts its paths in."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from csr.protocols import Progress
from flows.config import Recipe, resolve_world
from flows.progress import stage_progress


def with_world(recipe: Recipe) -> Recipe:
    """The recipe with `${world}` resolved; the world is built where the cache has none."""
    if recipe.world is None:
        return recipe
    from csr.world.build import build_world

    with ExitStack() as stack:
        bars: dict[str, Progress] = {}

        def show(part: str, done: int, total: int) -> None:
            if part not in bars:
                bars[part] = stack.enter_context(stage_progress(f"world: {part}"))
            bars[part](done, total)

        return resolve_world(recipe, build_world(recipe.world, cache_dir(), show))


def cache_dir() -> Path:
    """Where built worlds are kept: `CSR_CACHE`, or `csr` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "csr"
    return Path(os.environ.get("CSR_CACHE", default)).expanduser().absolute()
