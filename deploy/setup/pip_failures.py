"""Says in one line why an installation failed, from pip's own output."""

from __future__ import annotations

import re

_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProxyError"
    r"|name resolution|Network is unreachable|Max retries exceeded|Connection refused"
)
_NOT_FOUND = re.compile(r"No matching distribution found for (\S+)")
_TORCH_CPU = re.compile(r"torch==[\d.]+\+cpu")


def explain(output: str) -> str:
    """What went wrong and what to do. `output` is everything pip printed."""
    errors = [line for line in output.splitlines() if "ERROR" in line or "error:" in line]
    final = "\n".join(errors[-6:])
    if "No space left on device" in output:
        return "The disk filled up during the installation: free some space and try again."
    if "ensurepip" in output:
        return "This Python cannot make virtual environments: install its `venv` package first."
    not_found = _NOT_FOUND.search(final)
    offline = bool(_NETWORK.search(output))
    if offline and (not_found is None or "from versions: none" in final):
        return "The package index does not answer: check the network or proxy and try again."
    if _TORCH_CPU.search(final) or ("ResolutionImpossible" in final and _TORCH_CPU.search(output)):
        version = _TORCH_CPU.findall(output)[-1]
        return (
            f"The package index has no CPU build of torch ({version}): set PIP_EXTRA_INDEX_URL to "
            "PyTorch's own CPU wheel index (PyTorch's installation page names it) and try again."
        )
    if not_found is not None:
        return (
            f"There is no wheel of {not_found.group(1)} for this Python and platform: "
            "tested are Linux on x86-64 and Python 3.11."
        )
    if "ResolutionImpossible" in final:
        return "The pinned versions contradict each other; see the log."
    spoken = errors or [line for line in output.splitlines() if line.strip()]
    return spoken[-1].strip() if spoken else "pip failed without a word."
