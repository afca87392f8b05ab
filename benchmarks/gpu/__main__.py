"""Measures a GPU: `python -m benchmarks.gpu --out DIR`. See README.md beside this file."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.gpu.budget import (
    CHECKPOINT,
    DERIVED,
    NAMES,
    WRAP_UP_SECONDS,
    Part,
    limit_seconds,
    measured_parts,
    missing_packages,
    processes,
)
from benchmarks.gpu.checkpoint import models, needed_bytes
from benchmarks.gpu.child import Task
from benchmarks.gpu.record import FAILED, LEFT_OUT, MEASURED, RUNNING, Record, nvidia_smi
from benchmarks.gpu.report import markdown
from benchmarks.gpu.shapes import SIZES, Size
from csr.errors import ConfigError, CSRError, EnvironmentFault
from flows import environment

_KILL_SECONDS = 10.0
"""From asking a process to end until it is ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when all was measured, 1 when a part failed, 2 when this machine cannot measure it."""
    options = _parser().parse_args(arguments)
    size = SIZES[options.size]
    parts = measured_parts(options.parts)
    try:
        check(size, options.device, parts, options.work)
        gpu = nvidia_smi("name") if options.device == "cuda" else None
        record = Record.open(options.out / "gpu.json", size, options.device, gpu)
    except CSRError as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 2
    environment.apply(options.work, offline=True)
    options.work.mkdir(parents=True, exist_ok=True)
    ends_at = time.monotonic() + options.budget_seconds - WRAP_UP_SECONDS
    groups = processes(parts)
    for index, group in enumerate(groups):
        later = [each for after in groups[index + 1 :] for each in after]
        _run_group(record, options, group, later, ends_at)
    for name in DERIVED:
        if name in options.parts:
            _derive(record, name)
    print(markdown([record.read()]))
    names = [*(each.name for each in parts), *(n for n in DERIVED if n in options.parts)]
    return 1 if FAILED in record.statuses(names).values() else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of gpu.json and gpu.log")
    parser.add_argument("--size", choices=sorted(SIZES), default="llava-1.5-7b")
    parser.add_argument("--parts", nargs="+", choices=NAMES, default=list(NAMES), metavar="PART")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--work", type=Path, default=Path(".cache/gpu"), help="folder of models and images"
    )
    parser.add_argument(
        "--budget-seconds", type=float, default=530.0, help="for everything (530: nine minutes)"
    )
    return parser


def check(size: Size, device: str, parts: Sequence[Part], work: Path) -> None:
    """CSRError where this machine cannot measure these parts; the message says what it can."""
    if device == "cpu" and size.name != "tiny":
        raise ConfigError(
            f"{size.name} on a CPU would take hours and tell nothing. --device cpu goes with "
            "--size tiny, which proves that the suite works."
        )
    if device == "cuda" and not _has_gpu():
        raise EnvironmentFault(
            "torch sees no CUDA device here, so there is no GPU to measure. Run it on a machine "
            "with a GPU; `--size tiny --device cpu` proves on any machine that the suite works."
        )
    if missing := missing_packages(parts):
        told = "; ".join(f"{name} (for {', '.join(by)})" for name, by in missing.items())
        lacking = {each for by in missing.values() for each in by}
        able = [each.name for each in parts if each.name not in {*lacking, CHECKPOINT.name}]
        advice = f", or measure what can be: --parts {' '.join(able)}" if able else ""
        raise EnvironmentFault(f"not installed here: {told}. Install it{advice}.")
    folder = next(each for each in (work, *work.absolute().parents) if each.exists())
    free, needed = shutil.disk_usage(folder).free, needed_bytes(size, device)
    if free < needed and not models(work, size, device).root.exists():
        raise EnvironmentFault(
            f"{folder} has {free / 1e9:.0f} GB free, and the models take {needed / 1e9:.0f} GB. "
            "Give another --work."
        )


def _has_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def _run_group(
    record: Record,
    options: argparse.Namespace,
    group: Sequence[Part],
    later: Sequence[Part],
    ends_at: float,
) -> None:
    """Measure the parts of one process; after a process died, the parts behind go on in a new."""
    for each in group:
        record.begin(each.name)
    waiting = [each.name for each in group]
    while waiting:
        if _lacks_checkpoint(record, waiting[0]):
            _fail(record, waiting.pop(0), "the checkpoint that it measures was not built")
            continue
        these = [each for each in group if each.name in waiting]
        left = ends_at - time.monotonic()
        if left <= 0:
            for name in waiting:
                record.put(name, status=LEFT_OUT, left_out=["all of it"])
            return
        ended = _run_child(
            Task(
                record=str(record.path.absolute()),
                size=options.size,
                device=options.device,
                work=str(options.work.absolute()),
                parts=tuple(waiting),
                later=tuple(each.name for each in later),
                ends_at=ends_at,
            ),
            options.out / "gpu.log",
            limit_seconds(these, later, left),
        )
        statuses = record.statuses(waiting)
        done = [name for name in waiting if statuses[name] != RUNNING]
        waiting = [name for name in waiting if statuses[name] == RUNNING]
        if waiting:  # the first of them was under way, or the process never came to it
            _fail(record, waiting.pop(0), ended)
        for name in done:
            print(f"{name}: {statuses[name]}", file=sys.stderr)


def _lacks_checkpoint(record: Record, name: str) -> bool:
    from benchmarks.gpu.budget import part

    built = record.statuses([CHECKPOINT.name]).get(CHECKPOINT.name)
    return part(name).uses_policy and built != MEASURED


def _fail(record: Record, name: str, error: str) -> None:
    record.put(name, status=FAILED, error=error)
    print(f"{name}: failed: {error}", file=sys.stderr)


def _run_child(task: Task, log: Path, limit_seconds: float) -> str:
    """Wait for the child to end; says how it ended."""
    command = [sys.executable, "-u", "-X", "faulthandler", "-m", "benchmarks.gpu.child"]
    with log.open("ab") as output:
        child = subprocess.Popen(
            [*command, json.dumps(asdict(task))],
            stdout=output,
            stderr=output,
            env=environment.for_stage_process(),
            # Of the same session, so that what ends this command ends it too; a group of its
            # own, so that its children end with it.
            process_group=0,
        )
        try:
            code = child.wait(max(limit_seconds, 1.0))
        except subprocess.TimeoutExpired:
            _end(child)
            return f"stopped after {limit_seconds:.0f} s, its share of the budget and more"
        except BaseException:
            _end(child)
            raise
    return f"its process ended with status {code}; see {log.name}"


def _end(child: subprocess.Popen[bytes]) -> None:
    for sent in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is None:
            os.killpg(child.pid, sent)
            try:
                child.wait(_KILL_SECONDS)
            except subprocess.TimeoutExpired:
                continue


def _derive(record: Record, name: str) -> None:
    record.begin(name)
    figures = importlib.import_module(f"benchmarks.gpu.parts.{name}").derive(record.read())
    record.put(name, status=MEASURED, figures=figures)


if __name__ == "__main__":
    sys.exit(main())
