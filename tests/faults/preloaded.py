"""Imports what a scripted run needs; see `tests.faults.command`."""

import functools
import importlib.metadata
from importlib import import_module

MODULES = (
    "PIL.BmpImagePlugin",
    "PIL.GifImagePlugin",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "PIL.PpmImagePlugin",
    "csr.evaluation.captions",
    "csr.samplers.scripted",
    "csr.sources.csr",
    "csr.trainers.scripted",
    "flows.cli",
    "flows.command",
    "flows.listing",
    "flows.progress",
    "flows.reporting",
    "flows.stages",
    "pandas",
    "pyarrow.compute",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "rewards.similarity.scripted",
    "rich.console",
    "rich.progress",
    "rich.table",
    "safetensors.numpy",
    "tests.faults.command",
    "tests.scripted_run",
)

for name in MODULES:
    import_module(name)

# Each reads a package's whole metadata, hundreds of times in a run.
importlib.metadata.version = functools.cache(importlib.metadata.version)
