"""What `csr doctor --mend` does to this environment, where csr was installed without its set-up.

Package indexes carry only the CUDA builds of some packages that stand beside a CPU build of torch:
torchvision then needs a mend, and torchaudio and torchcodec, which nothing here uses, must go.
`make setup` does the same.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from csr.errors import EnvironmentFault
from csr.files import disk_errors
from flows.probes import run_probes
from flows.shipped import FILES

UNWANTED = ("torchaudio", "torchcodec")
"""Their CUDA builds fail at import beside CPU torch, and transformers imports them if present."""
MEND_FILES = ("torchvision_on_cpu.py", "torchvision_on_cpu.pth")
"""In site-packages; the second has Python import the first at its start."""


def mend_environment(present: Sequence[str]) -> list[str]:
    """Mend what is broken; what was done, one line each. `present`: the unwanted that are there.

    EnvironmentFault where this environment may not be changed.
    """
    done = []
    probes = run_probes({name: f"import {name}" for name in (*present, "torchvision")})
    broken = [name for name in present if not probes[name].ok]
    if broken:
        _uninstall(broken)
        done.append(f"uninstalled what does not import: {', '.join(broken)}")
    if not probes["torchvision"].ok and "torchvision::nms" in probes["torchvision"].last_line:
        install_torchvision_mend(Path(sysconfig.get_path("purelib")))
        done.append("installed the mend of torchvision")
    return done or ["nothing to mend"]


def install_torchvision_mend(site_packages: Path) -> None:
    """See deploy/setup/torchvision_on_cpu.py; it does nothing where torchvision is healthy."""
    code, start = (site_packages / name for name in MEND_FILES)
    with disk_errors(code):
        shutil.copyfile(FILES / "torchvision_on_cpu.txt", code)
        start.write_text(f"import {code.stem}\n", encoding="utf-8")


def _uninstall(packages: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pip", "uninstall", "--yes", *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EnvironmentFault(
            f"`pip uninstall {' '.join(packages)}` failed: {done.stderr.strip()[-500:]}. Remove "
            "them by hand: they do not import, and nothing here needs them."
        )
