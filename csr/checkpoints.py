"""Finds a model's directory and names its weights by content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from csr.errors import ModelError
from csr.types import PolicyRef

_WEIGHT_SUFFIX = ".safetensors"
_REFUSED_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_READ_BYTES = 1 << 20


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
        json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
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
