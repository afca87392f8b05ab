"""Measures what the pipeline costs on this CPU, and writes docs/performance.md: `make bench`.

    python -m benchmarks.performance [--parts sampling scoring ...] [--gpu runs/gpu/gpu.json]

Each part runs in a process of its own, on one thread. Figures are kept in docs/performance.json
part by part, so that one part can be measured anew; the page is made of all of them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.gpu.record import hardware, versions
from benchmarks.performance.measuring import Json
from benchmarks.performance.report import PARTS, markdown
from flows import environment
from storage.atomic import read_json, write_json

DOCS = Path(__file__).parents[2] / "docs"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when all was measured, 1 when a part failed; the others are measured all the same."""
    options = _parser().parse_args(arguments)
    if options.child:
        return _measure_here(options.child, options)
    options.work.mkdir(parents=True, exist_ok=True)
    failed = [name for name in options.parts if not _measured_apart(name, options)]
    document = read_json(options.figures) if options.figures.exists() else {"parts": {}}
    gpu = [read_json(file) for file in options.gpu]
    options.page.write_text(markdown(document, gpu), encoding="utf-8")
    print(f"wrote {options.page}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.performance", description=__doc__)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path(".cache/performance"))
    parser.add_argument("--figures", type=Path, default=DOCS / "performance.json")
    parser.add_argument("--page", type=Path, default=DOCS / "performance.md")
    parser.add_argument(
        "--gpu", type=Path, nargs="*", default=[], help="gpu.json of benchmarks.gpu"
    )
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    return parser


def _measured_apart(name: str, options: argparse.Namespace) -> bool:
    """Measure a part in a process on one thread; whether it came to its end."""
    command = [sys.executable, "-m", "benchmarks.performance", "--child", name]
    for option in ("rounds", "work", "figures"):
        command += [f"--{option}", str(getattr(options, option))]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    ended = subprocess.run(command, env={**os.environ, **threads}, check=False)
    return ended.returncode == 0


def _measure_here(name: str, options: argparse.Namespace) -> int:
    environment.apply(options.work, offline=True)
    part = importlib.import_module(f"benchmarks.performance.parts.{name}")
    figures: Json = part.measure(options.work.absolute(), options.rounds)
    document = read_json(options.figures) if options.figures.exists() else {"parts": {}}
    document["parts"][name] = {
        "figures": figures,
        "measured_at": datetime.now(UTC).date().isoformat(),
        "hardware": hardware("cpu"),
        "versions": versions(),
    }
    write_json(options.figures, document)
    print(json.dumps({name: figures}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
