"""How large a vision-language model is, from its configuration alone: no weight is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csr.checkpoints import MAX_CONFIG_BYTES
from csr.errors import ConfigError, ModelError, shown
from csr.planning import encoder_flops, encoder_layer_parameters
from flows.validation import suggestion

BYTES_OF = {"float32": 4, "bfloat16": 2, "float16": 2}
_GATED_MATRICES = 3
"""Of an MLP: gate, up and down, as Llama, Mistral, Qwen and Gemma have them."""
_LLAVA = ("llava", "vipllava")
_LLAVA_TILED = ("llava_next",)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionGeometry:
    """The tower that reads images."""

    num_layers: int
    width: int
    mlp_width: int
    num_positions: int
    """Patches and class token that it reads at once."""
    num_tiles: int = 1
    """Times that it reads for one image, at most."""

    @property
    def num_parameters(self) -> int:
        """Weights of its matrices."""
        return self.num_layers * encoder_layer_parameters(self.width, self.mlp_width)

    @property
    def flops_per_image(self) -> float:
        """Of all tiles."""
        return self.num_tiles * encoder_flops(
            num_layers=self.num_layers,
            width=self.width,
            mlp_width=self.mlp_width,
            num_tokens=self.num_positions,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """A policy's sizes."""

    name: str
    num_layers: int
    width: int
    mlp_width: int
    num_heads: int
    num_kv_heads: int
    head_width: int
    vocabulary_size: int
    ties_head: bool = False
    """Whether the output layer is the embedding again."""
    dtype: str
    """In which the weights are stored."""
    image_tokens: int | None
    """Of one image in a prompt; None where the configuration does not tell."""
    image_tokens_are_most: bool = False
    """Whether that is the most that an image may have, as where tiles follow its shape."""
    vision: VisionGeometry | None
    """None where the tower is of a kind that is not known here."""

    @property
    def attention_width(self) -> int:
        """Of all query heads together."""
        return self.num_heads * self.head_width

    @property
    def kv_width(self) -> int:
        """Of all key heads together; values have as much again."""
        return self.num_kv_heads * self.head_width

    @property
    def layer_matrices(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of each linear layer of one decoder layer."""
        attention, kv, mlp = self.attention_width, self.kv_width, self.mlp_width
        projections = ((self.width, attention), (self.width, kv), (self.width, kv))
        gated = ((self.width, mlp),) * (_GATED_MATRICES - 1)
        return (*projections, (attention, self.width), *gated, (mlp, self.width))

    @property
    def matmul_parameters(self) -> int:
        """Weights that every token is multiplied by, the output layer included."""
        layer = sum(inputs * outputs for inputs, outputs in self.layer_matrices)
        return self.num_layers * layer + self.width * self.vocabulary_size

    @property
    def num_parameters(self) -> int:
        """All weights: embedding, language model, tower and a projector of two layers."""
        embedding = 0 if self.ties_head else self.width * self.vocabulary_size
        tower = self.vision.num_parameters if self.vision else 0
        projector = (self.vision.width + self.width) * self.width if self.vision else 0
        return self.matmul_parameters + embedding + tower + projector

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Key and value of one token in all layers."""
        return 2 * self.num_layers * self.kv_width * BYTES_OF[dtype]

    def lora_parameters(self, rank: int) -> int:
        """Of an adapter on each linear layer of the decoder."""
        layer = sum(inputs + outputs for inputs, outputs in self.layer_matrices)
        return self.num_layers * layer * rank


def geometry_of(model: str, given: str | None) -> Geometry:
    """The sizes of the policy `model`, or of the known model `given` where there is one.

    ConfigError where `model` is neither on this machine nor known and nothing is given, or `given`
    is not known; ModelError names the field that a configuration lacks.
    """
    from flows.planning.known_models import HUB_IDS, KNOWN_MODELS

    if given is not None:
        if given not in KNOWN_MODELS:
            raise ConfigError(
                f"There is no known geometry {given!r}.{suggestion(given, list(KNOWN_MODELS))} "
                f"Known: {', '.join(KNOWN_MODELS)}."
            )
        return KNOWN_MODELS[given]
    directory = Path(model).expanduser()
    if not directory.is_dir() and model in HUB_IDS:
        return KNOWN_MODELS[HUB_IDS[model]]
    if not (directory / "config.json").is_file():
        raise ConfigError(
            f"policy.model is {shown(model)}, and there is no config.json in a directory of that "
            "name here. Give its sizes with --model-geometry "
            f"({', '.join(KNOWN_MODELS)}), or the directory of a checkpoint with "
            "--set policy.model=DIR."
        )
    return from_config(directory)


def from_config(directory: Path) -> Geometry:
    """The sizes that a checkpoint's config.json tells. ModelError where it cannot be used."""
    config = _read(directory)
    text, vision = config.get_text_config(), getattr(config, "vision_config", None)
    where = directory / "config.json"
    if any(getattr(text, name, None) for name in ("num_experts", "num_local_experts")):
        raise ModelError(
            f"{where}: the language model is a mixture of experts, whose tokens see a part of the "
            "weights alone. `csr plan` knows dense models only."
        )

    def need(name: str) -> int:
        value = getattr(text, name, None)
        if not isinstance(value, int) or value < 1:
            raise ModelError(
                f"{where} lacks `{name}` of the language model (found: {value!r}), without which "
                "its size is not known. Use --model-geometry, or a checkpoint that says it."
            )
        return value

    num_heads, width = need("num_attention_heads"), need("hidden_size")
    tokens, tiles, at_most = _image_tokens(config)
    return Geometry(
        name=str(directory),
        num_layers=need("num_hidden_layers"),
        width=width,
        mlp_width=need("intermediate_size"),
        num_heads=num_heads,
        num_kv_heads=getattr(text, "num_key_value_heads", None) or num_heads,
        head_width=getattr(text, "head_dim", None) or width // num_heads,
        vocabulary_size=need("vocab_size"),
        ties_head=bool(getattr(config, "tie_word_embeddings", False)),
        dtype=_dtype(config, text, where),
        image_tokens=tokens,
        image_tokens_are_most=at_most,
        vision=_vision(vision, tiles),
    )


def _read(directory: Path) -> Any:
    """The configuration as transformers reads it, from this directory and without its code."""
    file = directory / "config.json"
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {MAX_CONFIG_BYTES:,} bytes")
        document = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or "model_type" not in document:
            raise ValueError("it has no `model_type`")
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(
            str(directory), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # transformers raises a dozen unrelated types here
        lines = str(error).splitlines() or [type(error).__name__]
        raise ModelError(
            f"{file} cannot be used as a model's configuration ({lines[0][:200]}). Fetch the "
            "checkpoint again, or give its sizes with --model-geometry."
        ) from None


def _dtype(config: Any, text: Any, where: Path) -> str:
    name = str(getattr(config, "dtype", None) or getattr(text, "dtype", None))
    if (name := name.removeprefix("torch.")) not in BYTES_OF:
        raise ModelError(
            f"{where} lacks a `dtype` that can be planned (found: {name}): weights must be in one "
            f"of {', '.join(BYTES_OF)}. Use --model-geometry, or a checkpoint that says it."
        )
    return name


def _vision(config: Any, num_tiles: int) -> VisionGeometry | None:
    """None for towers that are no plain transformer over patches."""
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "image_size", "patch_size")
    sizes = _sizes(config, names)
    if sizes is None:
        return None
    layers, width, mlp_width, image, patch = sizes
    class_tokens = 1 if str(getattr(config, "model_type", "")).startswith("clip") else 0
    return VisionGeometry(
        num_layers=layers,
        width=width,
        mlp_width=mlp_width,
        num_positions=(image // patch) ** 2 + class_tokens,
        num_tiles=num_tiles,
    )


def _image_tokens(config: Any) -> tuple[int | None, int, bool]:
    """(tokens of an image, tiles that it is read in, whether both are the most it may have)."""
    family = config.model_type
    sizes = _sizes(getattr(config, "vision_config", None), ("image_size", "patch_size"))
    if family not in (*_LLAVA, *_LLAVA_TILED) or sizes is None:
        return None, 1, False
    image, patch = sizes
    grid = image // patch
    whole = grid * grid
    if family in _LLAVA:
        keeps_class = getattr(config, "vision_feature_select_strategy", "default") == "full"
        return whole + keeps_class, 1, False
    # The whole image once, and tiles of one of the shapes, each row of them ended by a mark.
    shapes = [(high // image, wide // image) for high, wide in config.image_grid_pinpoints]
    tokens, tiles = max((high * grid * (wide * grid + 1), high * wide) for high, wide in shapes)
    return whole + tokens, 1 + tiles, True


def _sizes(config: Any, names: Sequence[str]) -> list[int] | None:
    """The fields of these names; None where one is no positive number."""
    sizes = [getattr(config, name, None) for name in names]
    known = [size for size in sizes if isinstance(size, int) and size > 0]
    return known if len(known) == len(names) else None
