"""Builds the tiny world: a dataset, a base policy and a reward model, from nothing.

    python -m csr.world.build --cache DIR [--seed N]

The two models are trained beside each other in two child processes of one thread
each, so the result depends neither on the number of cores nor on what the calling
process has loaded.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from csr.world.dataset import write_dataset
from csr.world.parts import run_inline, run_parallel
from csr.world.scenes import sample_scenes
from csr.world.settings import WORLD_VERSION, Config, world_name

__all__ = ["WORLD_VERSION", "Config", "build_world", "world_name", "world_path"]

_BUILDING = ".building-"

NamedProgress = Callable[[str, int, int], None]
"""Called with (part, done, total)."""


def build_world(
    config: Config,
    cache_dir: Path,
    progress: NamedProgress | None = None,
    *,
    parallel: bool = True,
) -> Path:
    """The directory of the world, built unless `cache_dir` holds it already.

    It is built beside its final place and renamed when complete, so a directory of that
    name is always a whole world. With `parallel` off both models are trained in this
    process, one after the other; the files are the same.
    """
    final = world_path(config, cache_dir)
    if final.exists():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with _building_folder(final.parent) as building:
        _build(config, building, progress or _silent, parallel)
        _publish(building, final)
    return final


def world_path(config: Config, cache_dir: Path) -> Path:
    """Where the world is, or will be once it is built."""
    return Path(cache_dir) / "worlds" / world_name(config)


@contextmanager
def _building_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, removed at the end; those of killed builders are removed first.

    A builder holds the kernel's lock on its folder, which ends with its process.
    """
    with ExitStack() as stack:
        with _locked(parent):  # between the next folder's making and its locking, nobody looks
            for folder in parent.glob(f"{_BUILDING}*"):
                if not _is_held(folder):
                    shutil.rmtree(folder, ignore_errors=True)
            building = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=parent))
            stack.callback(shutil.rmtree, building, ignore_errors=True)
            stack.enter_context(_locked(building))
        yield building


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_held(folder: Path) -> bool:
    """Whether a process builds in it now, or it is another user's."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _build(config: Config, directory: Path, progress: NamedProgress, parallel: bool) -> None:
    write_dataset(
        directory / "data",
        train=sample_scenes("train", config.num_train, config.scenes),
        validation=sample_scenes("validation", config.num_validation, config.scenes),
        heldout=sample_scenes("heldout", config.num_heldout, config.scenes),
        num_pope_scenes=config.num_pope_scenes,
        progress=lambda done, total: progress("data", done, total),
    )
    run = run_parallel if parallel else run_inline
    reports = run(config.model_dump(mode="json"), directory, progress)
    _write_summary(config, directory, reports)


def _write_summary(config: Config, directory: Path, reports: dict[str, dict[str, Any]]) -> None:
    """`world.json`: what was built, how good it is, and what it took."""
    summary = {
        "world_version": WORLD_VERSION,
        "config": config.model_dump(mode="json"),
        **{
            key: {part: report[key] for part, report in reports.items()}
            for key in ("num_parameters", "quality", "seconds")
        },
    }
    (directory / "world.json").write_text(json.dumps(summary, indent=2) + "\n")


def _publish(building: Path, final: Path) -> None:
    """Rename; where another process was faster, its world is as good as ours."""
    os.chmod(building, 0o755)  # mkdtemp makes it private
    try:
        building.rename(final)
    except OSError:
        if not final.exists():
            raise


def _silent(part: str, done: int, total: int) -> None:
    """Report to nobody."""


def main() -> None:
    """Build one world and print its directory."""
    from rich.console import Console
    from rich.progress import Progress

    parser = argparse.ArgumentParser(description="Build the tiny world.")
    parser.add_argument("--cache", type=Path, required=True, help="directory that keeps worlds")
    parser.add_argument("--seed", type=int, default=0, help="seed of the policy")
    arguments = parser.parse_args()
    with Progress(console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def show(part: str, done: int, total: int) -> None:
            if part not in tasks:
                tasks[part] = bars.add_task(part, total=total)
            bars.update(tasks[part], completed=done, total=total)

        path = build_world(Config(seed=arguments.seed), arguments.cache, show)
    print(path)


if __name__ == "__main__":
    main()
