"""A process that measures some parts, one after another: it frees the GPU by ending.

Started by `benchmarks.gpu`; what it is told comes as one JSON argument.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import resource
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench, free_memory
from benchmarks.gpu.budget import Clock, part, share_seconds
from benchmarks.gpu.checkpoint import models
from benchmarks.gpu.record import FAILED, MEASURED, Json, Record, hardware, nvidia_smi, versions
from benchmarks.gpu.shapes import SIZES

_LOOK_SECONDS = 1.0
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one child does."""

    record: str
    size: str
    device: str
    work: str
    parts: tuple[str, ...]
    later: tuple[str, ...]
    """Parts of other processes, which want their share of the time."""
    ends_at: float
    """When the whole budget is over, by `time.monotonic`."""


def main(argument: str) -> None:
    """Measure; each part's figures and failures are in the record when this returns."""
    values = json.loads(argument)
    task = Task(**values | {name: tuple(values[name]) for name in ("parts", "later")})
    record = Record(Path(task.record))
    watch = _Watch(task.device)
    threading.Thread(target=watch.run, daemon=True).start()
    record.describe(hardware(task.device), versions())
    work, size = Path(task.work), SIZES[task.size]
    bench = Bench(
        size=size,
        device=task.device,
        models=models(work, size, task.device),
        work=work,
        clock=Clock(task.ends_at),
        keep=lambda figures: None,
    )
    try:
        for index, name in enumerate(task.parts):
            still = [part(each) for each in (*task.parts[index + 1 :], *task.later)]
            seconds = share_seconds(part(name), still, task.ends_at - time.monotonic())
            bench.clock = Clock(time.monotonic() + seconds)
            bench.keep = functools.partial(_keep, record, name)
            _measure(record, bench, watch, name)
    finally:
        bench.close()


def _keep(record: Record, name: str, figures: Json) -> None:
    record.put(name, figures=figures)


def _measure(record: Record, bench: Bench, watch: _Watch, name: str) -> None:
    started = time.monotonic()
    record.begin(name)
    free_memory(bench.device)  # what the part before left counts for none
    with watch.looking() as peak:
        try:
            figures = importlib.import_module(f"benchmarks.gpu.parts.{name}").measure(bench)
            record.put(name, status=MEASURED, figures=figures)
        except Exception as error:  # whatever a library raises: the other parts go on
            traceback.print_exc()
            record.put(
                name,
                status=FAILED,
                error=f"{type(error).__name__}: {error}",
                traceback=traceback.format_exc(limit=-12),
            )
    record.put(
        name,
        seconds=time.monotonic() - started,
        left_out=bench.clock.left_out,
        memory=peak,
    )


@dataclass
class _Watch:
    """Looks at the GPU's memory while a part runs, and whether anybody still waits for it."""

    device: str
    parent: int = field(default_factory=os.getppid)
    gpu_bytes: int = 0

    def run(self) -> None:
        """Until the process ends."""
        while True:
            if os.getppid() != self.parent:
                os._exit(1)  # nobody waits for the figures, and the GPU would stay taken
            self._look()
            time.sleep(_LOOK_SECONDS)

    @contextmanager
    def looking(self) -> Iterator[dict[str, Any]]:
        """Peaks inside the block, filled in at its end: bytes, and None where there is no GPU."""
        peak: dict[str, Any] = {}
        self.gpu_bytes = 0
        if self.device == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats()
        try:
            yield peak
        finally:
            # The peak of the process so far: the kernel counts no other.
            peak["process_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            peak["torch_bytes"] = peak["torch_reserved_bytes"] = peak["gpu_bytes"] = None
            if self.device == "cuda":
                self._look()
                peak["torch_bytes"] = torch.cuda.max_memory_allocated()
                peak["torch_reserved_bytes"] = torch.cuda.max_memory_reserved()
                peak["gpu_bytes"] = self.gpu_bytes or None

    def _look(self) -> None:
        used = nvidia_smi("memory.used") if self.device == "cuda" else None
        if used and used.isdigit():
            self.gpu_bytes = max(self.gpu_bytes, int(used) * _MIB)


if __name__ == "__main__":
    main(sys.argv[1])
