"""Finds a model's directory and names its weights by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from csr.errors import ModelError, shown
from csr.types import PolicyRef

_WEIGHT_SUFFIX = ".safetensors"
_REFUSED_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_READ_BYTES = 1 << 20
_CHECKED_VALUES = 1 << 24
_EXPONENTS = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
"""safetensors' name of a type -> its width as numpy has it, and the bits of its exponent."""
MAX_CONFIG_BYTES = 2**24
"""Of config.json; common ones have 5 kB."""


def resolve_model(name: str) -> Path:
    """The local directory of a checkpoint given by path or by hub id.

    ModelError where there is no such directory, the hub cannot be reached, or the
    directory lacks a configuration or safetensors weights.
    """
    directory = Path(name).expanduser()
    if not directory.is_dir():
        directory = _from_hub(name)
    _check_directory(directory)
    return directory.resolve()


def weights_sha256(directory: Path) -> str:
    """Digest over the names and bytes of a directory's safetensors files."""
    digest = hashlib.sha256()
    for file in sorted(directory.glob(f"*{_WEIGHT_SUFFIX}")):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while chunk := stream.read(_READ_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def check_weights(files: Iterable[Path]) -> None:
    """ModelError where a safetensors file is damaged, or a weight in it is NaN or infinite.

    Such a model would fail in the middle of a run, or teach the next policy nothing but NaN.
    Reads every byte once, as `weights_sha256` does.
    """
    for file in files:
        if broken := sorted(_not_finite(file)):
            raise ModelError(
                f"{file} has NaN or infinite values in {len(broken)} weights (first: {broken[0]}). "
                "Training or a conversion went wrong before; take a checkpoint from before that."
            )


def _not_finite(file: Path) -> list[str]:
    """Names of the floating-point tensors that hold a NaN or an infinity."""
    import numpy as np
    from safetensors import safe_open

    try:
        if not file.is_file():
            raise OSError("it is no file")
        with safe_open(file, framework="numpy"):
            pass  # proves the header, and that the file is as long as it says
        data = np.memmap(file, np.uint8, "r")
        size = int(data[:8].view("<u8")[0])
        header = json.loads(data[8 : 8 + size].tobytes())
    except Exception as error:  # safetensors has its own type, and damage has many
        raise ModelError(
            f"{file} is damaged and cannot be read ({shown(str(error))}). Fetch the checkpoint "
            "again."
        ) from None
    broken = []
    for name, tensor in header.items():
        if name == "__metadata__" or tensor["dtype"] not in _EXPONENTS:
            continue
        width, mask = _EXPONENTS[tensor["dtype"]]
        start, stop = (8 + size + offset for offset in tensor["data_offsets"])
        bits = data[start:stop].view(width)
        chunks = range(0, len(bits), _CHECKED_VALUES)
        # All exponent bits set: infinity or NaN, in every IEEE type and in bfloat16.
        if any(((bits[n : n + _CHECKED_VALUES] & mask) == mask).any() for n in chunks):
            broken.append(name)
    return broken


def base_policy(name: str) -> PolicyRef:
    """The policy of iteration 0: the user's own model."""
    directory = resolve_model(name)
    return PolicyRef(
        name="base", model_path=str(directory), sha256=weights_sha256(directory), iteration=0
    )


def _from_hub(name: str) -> Path:
    if Path(name).expanduser().exists():
        raise ModelError(
            f"The model {name!r} is a file. Give the directory that holds it, with config.json "
            "and the processor beside the weights."
        )
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(
            f"No model directory at {name!r}: the path does not exist. Give a checkpoint "
            "directory, or a hub id of the form 'owner/name'."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
            )
        )
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise ModelError(
            f"The model {name!r} is neither a local directory nor a hub id that can be reached "
            f"({type(error).__name__}). Check the name and the network, or download it elsewhere "
            "and give its directory."
        ) from None


def _check_directory(directory: Path) -> None:
    if not (directory / "config.json").is_file():
        raise ModelError(
            f"{directory} is not a checkpoint: it has no config.json. Give the directory that "
            "`save_pretrained` wrote."
        )
    try:
        if (directory / "config.json").stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {MAX_CONFIG_BYTES:,} bytes")
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{directory / 'config.json'} cannot be read as JSON ({error}). Fetch the checkpoint "
            "again."
        ) from None
    if any(directory.glob(f"*{_WEIGHT_SUFFIX}")):
        return
    refused = [file.name for file in directory.iterdir() if file.suffix in _REFUSED_SUFFIXES]
    what = (
        f"only {', '.join(sorted(refused))}, which can run code when loaded" if refused else "none"
    )
    raise ModelError(
        f"{directory} has no safetensors weights ({what}). Save the model with "
        "`save_pretrained(..., safe_serialization=True)`."
    )
