"""Keeps a training run from disturbing the process and the disk around it."""

from __future__ import annotations

import gc
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_WORK_PREFIX = ".training-"


@contextmanager
def preserved_globals() -> Iterator[None]:
    """Put back what training libraries change in the process: seeds, environment, log levels.

    A sampler in the same process keeps its random state, and accelerate forgets this run.
    """
    import datasets
    import numpy as np
    import torch
    import transformers
    from accelerate.state import AcceleratorState, GradientState, PartialState

    python_state, numpy_state = random.getstate(), np.random.get_state()
    environment = dict(os.environ)
    shared = {s: dict(s._shared_state) for s in (AcceleratorState, GradientState, PartialState)}
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    data_bars = datasets.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        _restore_environment(environment)
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
        if data_bars:
            datasets.enable_progress_bars()
        for state, values in shared.items():
            state._shared_state.clear()
            state._shared_state.update(values)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def staged_output(output_dir: Path, names: Sequence[str]) -> Iterator[Path]:
    """A work folder inside `output_dir`; on success its `names` move up, else nothing stays.

    What moves is complete and flushed to disk. An earlier result of the same name is
    replaced; the rest of the work folder is thrown away.
    """
    created = not output_dir.exists()
    output_dir.mkdir(parents=True, exist_ok=True)
    for stale in output_dir.glob(f"{_WORK_PREFIX}*"):
        shutil.rmtree(stale)
    work = Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=output_dir))
    try:
        yield work
        for name in names:
            _flush(work / name)
            shutil.rmtree(output_dir / name, ignore_errors=True)
            (work / name).rename(output_dir / name)
        created = False
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if created:
            shutil.rmtree(output_dir, ignore_errors=True)


def _restore_environment(before: dict[str, str]) -> None:
    """Touches what changed and no more: other threads may be reading."""
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _flush(folder: Path) -> None:
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
