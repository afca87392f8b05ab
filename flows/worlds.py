"""Builds the embedded world that a recipe asks for, once a machine, and puts its paths in."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from csr.files import disk_errors
from csr.protocols import Progress
from flows.config import Recipe, resolve_world
from flows.progress import stage_progress
from storage.atomic import require_free_space

WORLD_BYTES = 100 * 2**20
"""Room that a world takes while it is built, rounded up."""


def locate_world(recipe: Recipe) -> Recipe:
    """The recipe with `${world}` resolved to where the world is, or will be once built."""
    if recipe.world is None:
        return recipe
    from csr.world.build import world_path

    return resolve_world(recipe, world_path(recipe.world, cache_dir()))


def build_missing_world(recipe: Recipe) -> None:
    """Build the recipe's world where the cache has none. EnvironmentFault without room for it."""
    if recipe.world is None:
        return
    from csr.world.build import build_world, world_path

    cache = cache_dir()
    with disk_errors(cache), ExitStack() as stack:
        if not world_path(recipe.world, cache).exists():
            require_free_space(cache, WORLD_BYTES, "CSR_CACHE")
        bars: dict[str, Progress] = {}

        def show(part: str, done: int, total: int) -> None:
            if part not in bars:
                bars[part] = stack.enter_context(stage_progress(f"world: {part}"))
            bars[part](done, total)

        build_world(recipe.world, cache, show)


def cache_dir() -> Path:
    """Where built worlds are kept: `CSR_CACHE`, or `csr` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "csr"
    return Path(os.environ.get("CSR_CACHE", default)).expanduser().absolute()
