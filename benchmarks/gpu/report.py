"""Turns gpu.json into Markdown for docs/performance.md.

    python -m benchmarks.gpu.report DIR/gpu.json [MORE/gpu.json ...]

Several files of one machine are put together, part by part, a later file's before an earlier
one's; memory and plan are then made anew from all of them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import tables
from benchmarks.gpu.budget import DERIVED
from benchmarks.gpu.record import MEASURED, Json, figures, with_comparisons
from csr.errors import ConfigError, CSRError
from storage.atomic import read_json

NO_FIGURE = (
    "No GPU figure exists: nothing here was measured on a GPU. `python -m benchmarks.gpu --out DIR`"
    " measures on a machine with a GPU and vLLM (benchmarks/gpu/README.md)."
)
_TABLES: dict[str, Callable[[Json], list[str]]] = {
    "ceilings": tables.ceilings,
    "decode": tables.decode,
    "prefill": tables.prefill,
    "cache": tables.cache,
    "waves": tables.waves,
    "reload": tables.reload,
    "lora": tables.lora,
    "clip": tables.clip,
    "dpo": tables.dpo,
    "memory": tables.memory,
    "plan": tables.plan,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the text. 0, or 2 where the files cannot be put together."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.report", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    try:
        print(markdown([read_json(file) for file in parser.parse_args(arguments).files]))
    except CSRError as error:
        print(f"benchmarks.gpu.report: {error}", file=sys.stderr)
        return 2
    return 0


def markdown(documents: Sequence[Json]) -> str:
    """All tables of these measurements; a plain word where none is of a GPU."""
    on_gpu = [
        each for each in documents if each["device"] == "cuda" and each["hardware"].get("gpu")
    ]
    if not on_gpu:
        return NO_FIGURE + _of_a_cpu(documents)
    document = merged(on_gpu)
    lines = [_machine(document), ""]
    for name, table in _TABLES.items():
        part = document["parts"].get(name)
        if part is None:
            continue
        lines += [f"### {name}", ""]
        if part["status"] != MEASURED:
            reason = str(part.get("error", "")).splitlines()
            lines += [f"{part['status']}: {reason[0] if reason else 'no reason is known'}", ""]
        lines += _rows(table, figures(document, name))
        if part.get("left_out"):
            lines += [f"Left out for lack of time: {'; '.join(part['left_out'])}.", ""]
    return "\n".join(lines).rstrip()


def merged(documents: Sequence[Json]) -> Json:
    """One document of several. ConfigError where they are of different machines or sizes."""
    first = documents[0]
    for other in documents[1:]:
        for what in ("size", "device", "shape"):
            if first[what] != other[what]:
                raise ConfigError(f"The files are of different {what}: report each by itself.")
        if first["hardware"]["gpu"]["name"] != other["hardware"]["gpu"]["name"]:
            raise ConfigError("The files are of different GPUs: report each by itself.")
    parts = {name: part for each in documents for name, part in each["parts"].items()}
    document = with_comparisons({**documents[-1], "parts": parts})
    for name in DERIVED:
        if len(documents) > 1 or name not in parts:
            derive = importlib.import_module(f"benchmarks.gpu.parts.{name}").derive
            made = {"status": MEASURED, "figures": derive(document), "left_out": []}
            document["parts"][name] = made
    return document


def _rows(table: Callable[[Json], list[str]], found: Json) -> list[str]:
    """A part that failed on its way has some of its figures, and then its rows end early."""
    if not found:
        return []
    try:
        return [*table(found), ""]
    except KeyError as error:
        told = json.dumps(found)
        return [f"Not complete (no {error}); what there is: `{told[:2000]}`", ""]


def _machine(document: Json) -> str:
    gpu, hardware = document["hardware"]["gpu"], document["hardware"]
    names: dict[str, Any] = document["versions"]
    told = ", ".join(f"{name} {version}" for name, version in names.items())
    return (
        f"{gpu['name']}, {gpu['memory_bytes'] / 2**30:.0f} GiB, driver {gpu['driver']}, "
        f"CUDA {gpu['cuda']}; {hardware['num_cpus']} CPU cores, "
        f"{hardware['memory_bytes'] / 2**30:.0f} GiB of RAM. {told}. Model: {document['size']}, "
        "random weights in bfloat16. Medians, with the extremes in brackets."
    )


def _of_a_cpu(documents: Sequence[Json]) -> str:
    if not documents:
        return ""
    done = [
        name for each in documents for name, p in each["parts"].items() if p["status"] == MEASURED
    ]
    failed = [
        name for each in documents for name, p in each["parts"].items() if p["status"] != MEASURED
    ]
    told = f" A run of the size {documents[-1]['size']} on a CPU went through {len(done)} parts"
    told += f", and not through {', '.join(failed)}" if failed else ""
    return told + ": it proves the suite alone, and its figures say nothing about a GPU."


if __name__ == "__main__":
    sys.exit(main())
