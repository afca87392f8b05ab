"""One LoRA adapter that takes the base model to where several iterations took it.

Each iteration trains an adapter on the policy before it, into which the ones before are merged. On
its own the last one fits a model that nobody else has. LoRA's changes add up: with
W' = W + s1 B1 A1 + s2 B2 A2, the adapter with A = [A1; A2] and B = [s1 B1, s2 B2] says the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csr.errors import ModelError
from storage.atomic import read_json

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PLAIN = {"peft_type": "LORA", "use_dora": False, "use_rslora": False, "bias": "none",
         "modules_to_save": None, "fan_in_fan_out": False}  # fmt: skip
"""What a configuration must say for its changes to add up."""


def write_adapter(adapters: Sequence[Path], target: Path, base_model: str) -> int:
    """The adapters, in the order of training, as one in `target`; its rank.

    `base_model` is the hub id or the directory that it is for. ModelError where they do not add
    up: another kind of adapter, or other layers.
    """
    from safetensors.torch import save_file

    configs = [_plain_config(adapter) for adapter in adapters]
    target.mkdir(parents=True, exist_ok=True)
    config = {**configs[-1], "base_model_name_or_path": base_model}
    if len(adapters) == 1:
        shutil.copyfile(adapters[0] / WEIGHTS, target / WEIGHTS)
    else:
        rank = sum(each["r"] for each in configs)
        config |= {"r": rank, "lora_alpha": rank}
        save_file(_added(adapters, configs), target / WEIGHTS, metadata={"format": "pt"})
    text = json.dumps(config, indent=2, sort_keys=True)
    (target / CONFIG).write_text(text + "\n", encoding="utf-8")
    return int(config["r"])


def _plain_config(adapter: Path) -> dict[str, Any]:
    config = read_json(adapter / CONFIG)
    odd = {key: config.get(key) for key, value in PLAIN.items() if config.get(key, value) != value}
    odd |= {key: config[key] for key in ("rank_pattern", "alpha_pattern") if config.get(key)}
    if odd:
        raise ModelError(
            f"{adapter} is no plain LoRA adapter ({odd}), so it cannot "
            "be exported as one. Export the merged model: --what merged."
        )
    return config


def _added(adapters: Sequence[Path], configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Tensor name -> the adapters' own put side by side, scales in B."""
    import torch
    from safetensors.torch import load_file

    tensors = [load_file(adapter / WEIGHTS) for adapter in adapters]
    if any(each.keys() != tensors[0].keys() for each in tensors):
        raise ModelError(
            "The iterations' adapters change different layers, so they cannot be exported as one. "
            "Export the merged model: --what merged."
        )
    scales = [config["lora_alpha"] / config["r"] for config in configs]
    added = {}
    for name in tensors[0]:
        parts = [each[name] for each in tensors]
        if ".lora_B." in name:
            scaled = [part * scale for part, scale in zip(parts, scales, strict=True)]
            added[name] = torch.cat(scaled, dim=1).contiguous()
        else:
            assert ".lora_A." in name, name
            added[name] = torch.cat(parts, dim=0).contiguous()
    return added
