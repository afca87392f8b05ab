"""How large a CLIP is, from its configuration file alone: neither torch nor weights are loaded."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from csr.planning import PlannedSimilarity, encoder_flops, encoder_layer_parameters

_CONFIG_NAME = "open_clip_config.json"
_LOCAL_PREFIX = "local-dir:"
_MLP_RATIO = 4.0
"""open_clip's default."""


def planned_towers(model: str, *, dtype: str, dtype_setting: str) -> PlannedSimilarity | None:
    """FLOPs and parameters of the model that open_clip knows as `model`, or that lies there.

    None where its configuration is not here, or has towers of another kind (timm, ResNet,
    Hugging Face), whose sizes it does not tell.
    """
    config = _stored_config(model)
    try:
        return None if config is None else _planned(config, dtype, dtype_setting)
    except (KeyError, TypeError, ValueError):  # not told, or not as a plain transformer's
        return None


def _planned(config: dict[str, Any], dtype: str, dtype_setting: str) -> PlannedSimilarity:
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision or "hf_model_name" in text:
        raise ValueError("the towers are another library's")
    num_patches = (int(vision["image_size"]) // int(vision["patch_size"])) ** 2
    towers = [(vision, num_patches + 1), (text, int(text["context_length"]))]
    flops, num_parameters = [], float(text["width"]) * int(text["vocab_size"])
    for tower, num_tokens in towers:
        width, num_layers = int(tower["width"]), int(tower["layers"])
        mlp_width = int(width * float(tower.get("mlp_ratio", _MLP_RATIO)))
        size = {"num_layers": num_layers, "width": width, "mlp_width": mlp_width}
        flops.append(encoder_flops(**size, num_tokens=num_tokens))
        num_parameters += num_layers * encoder_layer_parameters(width, mlp_width)
    return PlannedSimilarity(
        flops_per_image=flops[0],
        flops_per_text=flops[1],
        num_parameters=num_parameters,
        dtype={"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[dtype],
        dtype_setting=dtype_setting,
    )


def _stored_config(model: str) -> dict[str, Any] | None:
    """What open_clip would build the model from; None where that is not on this machine."""
    directory = Path(model.removeprefix(_LOCAL_PREFIX)).expanduser()
    if directory.is_dir():
        document = _read(directory / _CONFIG_NAME)
        return document and document.get("model_cfg")
    package = importlib.util.find_spec("open_clip")
    if package is None or package.origin is None or Path(model).name != model:
        return None
    return _read(Path(package.origin).parent / "model_configs" / f"{model}.json")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
