"""Writes constraints-cuda.txt: what pip would install for a GPU. Nothing is installed.

    python deploy/setup/resolve_constraints.py

It starts from constraints-cpu.txt, so that both environments have the same versions wherever
they can, and lets go of what the CUDA builds ask for otherwise. Of a wheel pip reads only the
metadata. Needs Linux on x86-64 and the Python that the environment will have, but no GPU.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

from freeze_constraints import NOT_PINNED

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "deploy" / "setup"
BASE, TARGET = HERE / "constraints-cpu.txt", HERE / "constraints-cuda.txt"

HEADER = """\
# What pip resolves for the extra `cuda` on Linux x86-64, Python 3.11. Written by
# resolve_constraints.py; do not edit. These versions fit each other by what they say of
# themselves; they have not been run on a GPU together.
"""
MAX_TRIES = 20

_CONFLICT = re.compile(r"The user requested \(constraint\) (\S+?)==")


def conflicting(output: str) -> set[str]:
    """The constraints that pip names as the reason why nothing fits."""
    return set(_CONFLICT.findall(output))


def without(pins: list[str], names: set[str]) -> list[str]:
    """The pins but for those of the names."""
    return [pin for pin in pins if pin.partition("==")[0] not in names]


def resolved(report: dict[str, list[dict[str, dict[str, str]]]]) -> list[str]:
    """The pins of pip's report, without build labels and ourselves."""
    found = {each["metadata"]["name"]: each["metadata"]["version"] for each in report["install"]}
    pins = [f"{n}=={v.split('+')[0]}" for n, v in found.items() if n.lower() not in NOT_PINNED]
    return sorted(pins, key=str.lower)


def cuda_torch() -> str:
    """The pin of torch that no build labelled `+cpu` meets, which pip would else prefer."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins: list[str] = project["optional-dependencies"]["cuda"]
    return next(pin for pin in pins if pin.startswith("torch==")).replace("==", "===")


def resolve(folder: Path, pins: list[str]) -> list[str]:
    """What pip would put into an empty environment, given constraints that may yield."""
    venv.create(folder / "venv", with_pip=True)
    pip = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "install"]
    subprocess.run([*pip, "--quiet", "--upgrade", "pip"], check=True)
    constraints, report = folder / "constraints.txt", folder / "report.json"
    command = [
        *pip, "--dry-run", "--use-feature=fast-deps", "--report", str(report),
        "--constraint", str(constraints), f"{ROOT}[cuda,dev]", cuda_torch(),
    ]  # fmt: skip
    for _ in range(MAX_TRIES):
        constraints.write_text("\n".join(pins) + "\n")
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return resolved(json.loads(report.read_text()))
        names = conflicting(answer.stdout + answer.stderr)
        if not names:
            sys.exit(answer.stderr)
        print(f"left to pip: {', '.join(sorted(names))}", file=sys.stderr)
        pins = without(pins, names)
    sys.exit(f"nothing fits after {MAX_TRIES} tries")


if __name__ == "__main__":
    base = [line for line in BASE.read_text().splitlines() if not line.startswith("#")]
    with tempfile.TemporaryDirectory() as temporary:
        TARGET.write_text(HEADER + "\n".join(resolve(Path(temporary), base)) + "\n")
    print(f"wrote {TARGET}")
