"""Makes what is measured, with random weights and nothing downloaded.

A LLaVA in safetensors shards, the same with another output layer (as a policy that was updated),
a LoRA adapter on it, and a CLIP. Every tensor is drawn on the device and written at once: a 7B
model takes about as long as the disk needs for it.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.companions import save_adapter, save_processor
from benchmarks.gpu.shapes import Shape, Size
from csr.files import temporary_beside
from csr.types import PolicyRef

_STD = 0.02
_SHARD_BYTES = 4 << 30
_HEAD = "language_model.lm_head.weight"


@dataclass(frozen=True, slots=True)
class Models:
    """Where the models of one size and dtype are."""

    root: Path

    @property
    def base(self) -> PolicyRef:
        """The policy that most parts ask."""
        return self._policy("base")

    @property
    def other(self) -> PolicyRef:
        """The same architecture with another output layer."""
        return self._policy("other")

    @property
    def adapter(self) -> Path:
        """A LoRA adapter on `base`, in PEFT's format."""
        return self.root / "adapter"

    @property
    def clip(self) -> Path:
        """An open_clip model."""
        return self.root / "clip"

    def _policy(self, name: str) -> PolicyRef:
        # Hashing 13 GB would tell no more than the name does.
        path = str(self.root / name)
        return PolicyRef(name=name, model_path=path, sha256=f"benchmark-{name}", iteration=0)


def dtype_name(device: str) -> str:
    """bfloat16 on a GPU; float32 on a CPU, where trees in any batch are then equal."""
    return "bfloat16" if device == "cuda" else "float32"


def models(work: Path, size: Size, device: str) -> Models:
    """Where they are, or will be: another shape has another place."""
    shape = hashlib.sha256(repr(size.shape).encode()).hexdigest()[:8]
    return Models(work / f"{size.name}-{dtype_name(device)}-{shape}")


def build_policy(target: Models, size: Size, device: str) -> dict[str, Any]:
    """`base`, `other` and `adapter`; what exists already stays. Returns figures."""
    made = []
    for name, build in (
        ("base", _build_base),
        ("other", _build_other),
        ("adapter", _build_adapter),
    ):
        path = target.root / name
        if not path.exists():
            temporary = temporary_beside(path)
            temporary.mkdir(parents=True)
            build(temporary, target, size.shape, device)
            temporary.rename(path)
            made.append(name)
    files = list((target.root / "base").glob("*.safetensors"))
    return {
        "made": made,
        "num_shards": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "adapter_bytes": sum(file.stat().st_size for file in target.adapter.iterdir()),
        "dtype": dtype_name(device),
    }


def build_clip(target: Models, size: Size, device: str) -> None:
    """An open_clip directory in float32, as published ones are; what exists already stays."""
    if target.clip.exists():
        return
    import open_clip
    import torch
    from safetensors.torch import save_file

    tiny = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 56, "patch_size": 14, "width": 64, "layers": 2},
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2,
        },
    }  # fmt: skip
    config = open_clip.get_model_config(size.clip) if size.clip else tiny
    torch.manual_seed(0)
    with torch.device(device):
        network = open_clip.CLIP(**config)
    preprocess = {
        "mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD),
    }  # fmt: skip
    temporary = temporary_beside(target.clip)
    temporary.mkdir(parents=True)
    document = {"model_cfg": config, "preprocess_cfg": preprocess}
    (temporary / "open_clip_config.json").write_text(json.dumps(document, indent=2))
    weights = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    save_file(weights, temporary / "open_clip_model.safetensors")
    temporary.rename(target.clip)


def needed_bytes(size: Size, device: str) -> int:
    """Disk space for all of it, with a tenth to spare."""
    value_bytes = 2 if device == "cuda" else 4
    shape = size.shape
    parameters = shape.linear_parameters + 3 * shape.head_parameters + shape.lora_parameters
    vision = shape.vision_layers * 12 * shape.vision_width**2
    clip = 2 << 30 if size.clip else 1 << 24
    return int(1.1 * (value_bytes * (parameters + vision) + clip))


# ---------------------------------------------------------------- the policy


def _build_base(folder: Path, target: Models, shape: Shape, device: str) -> None:
    from transformers import GenerationConfig

    from csr.world.tokenizer import BOS_ID, EOS_ID, PAD_ID

    config = _config(shape, device)
    config.save_pretrained(folder)
    ids = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}
    GenerationConfig(**ids).save_pretrained(folder)
    save_processor(folder, shape)
    shards = list(_shards(_tensor_shapes(config), 2 if device == "cuda" else 4))
    index: dict[str, str] = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(folder / file, names, device, seed=number)
        index |= dict.fromkeys(names, file)
    document = {"metadata": {}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(document, indent=2))


def _build_other(folder: Path, target: Models, shape: Shape, device: str) -> None:
    base = target.root / "base"
    index = json.loads((base / "model.safetensors.index.json").read_text())["weight_map"]
    for file in base.iterdir():
        if file.suffix == ".safetensors" and file.name != index[_HEAD]:
            (folder / file.name).symlink_to(file.resolve())
        elif file.suffix != ".safetensors":
            shutil.copyfile(file, folder / file.name)
    head: dict[str, tuple[int, ...]] = {_HEAD: (shape.vocabulary, shape.width)}
    _write_shard(folder / index[_HEAD], head, device, seed=1_000_000)


def _build_adapter(folder: Path, target: Models, shape: Shape, device: str) -> None:
    save_adapter(folder, shape, device, dtype_name(device))


def _config(shape: Shape, device: str) -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    from csr.world.tokenizer import BOS_ID, EOS_ID, IMAGE_ID, PAD_ID

    ids = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}
    vision = CLIPVisionConfig(
        hidden_size=shape.vision_width,
        intermediate_size=shape.vision_intermediate,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_heads,
        image_size=shape.image_size,
        patch_size=shape.patch_size,
        projection_dim=shape.vision_width,
    )
    text = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.max_context_tokens,
        **ids,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_ID,
        image_seq_length=shape.num_image_tokens,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
        architectures=["LlavaForConditionalGeneration"],
        dtype=dtype_name(device),
        **ids,
    )


def _tensor_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Each weight's name, as published LLaVA-1.5 checkpoints have it, and its shape."""
    import torch
    from transformers import LlavaForConditionalGeneration

    with torch.device("meta"):  # names and shapes alone, no memory
        model = LlavaForConditionalGeneration(config)
    return {_hub_name(name): tuple(value.shape) for name, value in model.state_dict().items()}


def _hub_name(name: str) -> str:
    """vLLM reads the vision tower under its published name only; transformers reads both."""
    if name.startswith("lm_head."):
        return f"language_model.{name}"
    name = name.removeprefix("model.")
    for old, new in (
        ("language_model.", "language_model.model."),
        ("vision_tower.", "vision_tower.vision_model."),
    ):
        if name.startswith(old) and not name.startswith(new):
            return new + name.removeprefix(old)
    return name


def _shards(
    tensors: dict[str, tuple[int, ...]], value_bytes: int, max_bytes: int = _SHARD_BYTES
) -> Iterator[dict[str, tuple[int, ...]]]:
    """The tensors in parts of bounded size; the output layer is a part of its own."""
    part: dict[str, tuple[int, ...]] = {}
    num_bytes = 0
    for name, dimensions in tensors.items():
        if name == _HEAD:
            continue
        size = value_bytes * math.prod(dimensions)
        if part and num_bytes + size > max_bytes:
            yield part
            part, num_bytes = {}, 0
        part[name] = dimensions
        num_bytes += size
    yield part
    yield {_HEAD: tensors[_HEAD]}


def _write_shard(file: Path, tensors: dict[str, tuple[int, ...]], device: str, seed: int) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator(device).manual_seed(seed)
    dtype = getattr(torch, dtype_name(device))
    weights = {}
    for name, dimensions in tensors.items():
        value = torch.empty(dimensions, dtype=dtype, device=device)
        if name.endswith(".bias"):
            value.zero_()
        elif len(dimensions) == 1 and "norm" in name:
            value.fill_(1.0)
        else:
            value.normal_(0.0, _STD, generator=generator)
        weights[name] = value.cpu()
    save_file(weights, file, metadata={"format": "pt"})
