"""Finds what open_clip needs to build a model, and never a pickle."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from csr.errors import ConfigError, ModelError

_LOCAL_PREFIX = "local-dir:"
_HUB_PREFIX = "hf-hub:"
_CONFIG_NAME = "open_clip_config.json"
_WEIGHT_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
)
_HUB_PATTERNS = ["*.json", "*.txt", "*.model", *_WEIGHT_NAMES]


def load_open_clip(
    model: str, pretrained: str | None, device: str, precision: str
) -> tuple[Any, Callable[[Any], Any], Any]:
    """The model in eval mode, its image preprocessing and its tokenizer.

    ConfigError for a wrong name, ModelError where files are missing, pickled or do not fit.
    """
    import open_clip

    name, weights, options = find_model(model, pretrained)
    try:
        network, _, preprocess = open_clip.create_model_and_transforms(
            name,
            load_weights=False,
            pretrained_text=False,
            precision=precision,
            device=device,
            **options,
        )
        open_clip.load_checkpoint(network, str(weights))
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip, torch and the hub raise a dozen unrelated types
        raise ModelError(
            f"open_clip cannot build {model!r} with the weights {weights}: "
            f"{str(error).splitlines()[0][:300]}. Check that both belong together."
        ) from error
    return network.eval(), preprocess, tokenizer


def find_model(model: str, pretrained: str | None) -> tuple[str, Path, dict[str, Any]]:
    """What open_clip calls the model, its weights file, and options of `create_model`.

    ConfigError for a wrong name, ModelError where files are missing, pickled or out of reach.
    """
    path = Path(model.removeprefix(_LOCAL_PREFIX)).expanduser()
    if model.startswith(_LOCAL_PREFIX) or path.is_dir() or model.startswith(("/", ".", "~")):
        _refuse_pretrained(model, pretrained)
        return _from_directory(path)
    if model.startswith(_HUB_PREFIX):
        _refuse_pretrained(model, pretrained)
        return _from_directory(_download(model.removeprefix(_HUB_PREFIX), _HUB_PATTERNS))
    return _from_name(model, pretrained)


def _refuse_pretrained(model: str, pretrained: str | None) -> None:
    if pretrained is not None:
        raise ConfigError(
            f"pretrained {pretrained!r} does not go with {model!r}, which brings its own weights. "
            "Leave pretrained out."
        )


def _from_directory(directory: Path) -> tuple[str, Path, dict[str, Any]]:
    if not directory.is_dir():
        raise ModelError(f"There is no CLIP directory at {directory}. Check the path.")
    config = directory / _CONFIG_NAME
    if not config.is_file():
        raise ModelError(
            f"{directory} has no {_CONFIG_NAME}, so it is not an open_clip model. Give a directory "
            "that open_clip saved, or an open_clip model name with `pretrained`."
        )
    try:
        document = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{config} cannot be read as JSON: {error}. Save the model anew."
        ) from None
    if not isinstance(document, dict) or "model_cfg" not in document:
        raise ModelError(f"{config} has no 'model_cfg': it does not describe a model.")
    return f"{_LOCAL_PREFIX}{directory}", _weights_in(directory), {}


def _weights_in(directory: Path) -> Path:
    for name in _WEIGHT_NAMES:
        if (directory / name).is_file():
            return directory / name
    files = sorted(directory.glob("*.safetensors"))
    if len(files) == 1:
        return files[0]
    found = ", ".join(sorted(file.name for file in directory.iterdir() if file.is_file()))
    raise ModelError(
        f"{directory} has no {_WEIGHT_NAMES[0]} (found: {found}). Pickled weights (.bin, .pt, "
        ".pth) are refused, since loading them can run code: convert them to safetensors."
    )


def _from_name(model: str, pretrained: str | None) -> tuple[str, Path, dict[str, Any]]:
    import open_clip

    known = open_clip.list_models()
    if model not in known:
        near = difflib.get_close_matches(model, known, n=3, cutoff=0.4)
        near = [f"{_HUB_PREFIX}{model}"] if model.count("/") == 1 else near
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise ConfigError(
            f"open_clip has no model {model!r}, and no directory has that name. {hint}"
            "`open_clip.list_models()` lists all names."
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    listed = f"one of the tags {', '.join(tags)}, or " if tags else ""
    if pretrained is None:
        raise ConfigError(
            f"The CLIP {model!r} needs `pretrained`: {listed}a .safetensors file. Without "
            "weights it would be random."
        )
    if pretrained in tags:
        return _from_tag(model, pretrained)
    file = Path(pretrained).expanduser()
    if not file.is_file():
        raise ConfigError(
            f"pretrained {pretrained!r} is neither a file nor a tag of {model!r}. "
            f"Give {listed}an existing .safetensors file."
        )
    if file.suffix != ".safetensors":
        raise ModelError(
            f"The weights {file} are not a .safetensors file. Pickled weights are refused, since "
            "loading them can run code: convert them to safetensors."
        )
    return model, file, {}


def _from_tag(model: str, tag: str) -> tuple[str, Path, dict[str, Any]]:
    from open_clip.pretrained import get_pretrained_cfg

    about = get_pretrained_cfg(model, tag)
    if not about.get("hf_hub"):
        raise ModelError(
            f"The weights {tag!r} of {model!r} exist as a pickle only, which is refused, since "
            "loading it can run code. Choose another tag, or convert them to safetensors and give "
            "the file."
        )
    repository, _, file_name = about["hf_hub"].rpartition("/")
    wanted = f"{Path(file_name).stem}.safetensors" if file_name else _WEIGHT_NAMES[0]
    weights = _download(repository, [wanted]) / wanted
    if not weights.is_file():
        raise ModelError(
            f"The hub repository {repository} of the tag {tag!r} has no {wanted}: pickled weights "
            "are refused. Choose another tag."
        )
    # The tag knows how its images were prepared and which activation it was trained with;
    # open_clip reads both only when it loads the weights itself.
    prepared = {
        f"image_{key}": about[key]
        for key in ("mean", "std", "interpolation", "resize_mode")
        if key in about
    }
    return model, weights, {**prepared, "force_quick_gelu": bool(about.get("quick_gelu"))}


def _download(repository: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise ModelError(
            f"The CLIP repository {repository!r} cannot be fetched from the hub "
            f"({type(error).__name__}). Check the name and the network, or download it elsewhere "
            "and give its directory."
        ) from None
