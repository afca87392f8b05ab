"""Adapters of several iterations as one: B A of the sum is the sum of scaled B A."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from csr.errors import ModelError
from flows.exporting.adapter import write_adapter

LAYER = "base_model.model.q_proj"


def adapter(folder: Path, a: Any, b: Any, **settings: Any) -> Path:
    """An adapter of one layer with A (rank, in) and B (out, rank)."""
    folder.mkdir()
    tensors = {f"{LAYER}.lora_A.weight": torch.tensor(a), f"{LAYER}.lora_B.weight": torch.tensor(b)}
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": len(a), "lora_alpha": len(a), "bias": "none",
              "base_model_name_or_path": "/old", **settings}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def change(folder: Path) -> torch.Tensor:
    """What the adapter adds to the layer's weights: (alpha / r) B A."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    a, b = tensors[f"{LAYER}.lora_A.weight"], tensors[f"{LAYER}.lora_B.weight"]
    assert a.shape[0] == b.shape[1] == config["r"]
    return config["lora_alpha"] / config["r"] * (b @ a)


def test_two_adapters_add_up(tmp_path: Path) -> None:
    one = adapter(tmp_path / "1", [[1.0, 2.0]], [[3.0], [0.0]], lora_alpha=2)
    two = adapter(tmp_path / "2", [[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [2.0, 0.0]], lora_alpha=1)
    assert write_adapter([one, two], tmp_path / "sum", "me/base") == 3
    # 2 * [[3, 6], [0, 0]] + 1/2 * [[1, 1], [2, 0]]
    assert change(tmp_path / "sum").tolist() == [[6.5, 12.5], [1.0, 0.0]]
    config = json.loads((tmp_path / "sum/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "me/base"
    assert (config["r"], config["lora_alpha"]) == (3, 3)


def test_one_adapter_is_kept_as_it_is(tmp_path: Path) -> None:
    one = adapter(tmp_path / "1", [[1.0, 2.0]], [[3.0], [0.0]], lora_alpha=2)
    assert write_adapter([one], tmp_path / "out", "/base") == 1
    weights = "adapter_model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (one / weights).read_bytes()
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "/base"
    assert config["lora_alpha"] == 2


@pytest.mark.parametrize(
    "settings",
    [{"use_dora": True}, {"use_rslora": True}, {"bias": "all"}, {"peft_type": "IA3"},
     {"rank_pattern": {"q_proj": 2}}, {"modules_to_save": ["lm_head"]}],
)  # fmt: skip
def test_what_does_not_add_up_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    one = adapter(tmp_path / "1", [[1.0]], [[1.0]], **settings)
    with pytest.raises(ModelError, match=r"no plain LoRA adapter.*--what merged"):
        write_adapter([one], tmp_path / "out", "me/base")


def test_adapters_of_other_layers_are_refused(tmp_path: Path) -> None:
    one = adapter(tmp_path / "1", [[1.0]], [[1.0]])
    two = adapter(tmp_path / "2", [[1.0]], [[1.0]])
    tensors = load_file(two / "adapter_model.safetensors")
    renamed = {name.replace("q_proj", "k_proj"): tensor for name, tensor in tensors.items()}
    save_file(renamed, two / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="change different layers"):
        write_adapter([one, two], tmp_path / "out", "me/base")
