"""A model's sizes from its configuration, against the models that transformers builds of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from csr.errors import ConfigError, ModelError
from flows.planning.geometry import Geometry, from_config, geometry_of
from flows.planning.known_models import HUB_IDS, KNOWN_MODELS
from flows.shipped import RECIPES

KNOWN_CONFIGS = {
    "llava-1.5-7b": ("llava", {"text_config": {"model_type": "llama", "vocab_size": 32064}}),
    "llava-1.5-13b": (
        "llava",
        {
            "text_config": {
                "model_type": "llama", "vocab_size": 32064, "hidden_size": 5120,
                "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40,
                "num_key_value_heads": 40,
            }
        },
    ),
    "llava-v1.6-mistral-7b": (
        "llava_next", {"text_config": {"model_type": "mistral", "vocab_size": 32064}}
    ),
}  # fmt: skip
"""What the published files say beside the defaults of their families."""


_QWEN2_7B = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
}  # fmt: skip
_SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27}
OTHER_CONFIGS = {
    "llava-onevision-qwen2-7b": (
        "llava_onevision", {"text_config": {**_QWEN2_7B, "vocab_size": 152000}}
    ),
    "qwen2.5-vl-7b": (
        "qwen2_5_vl",
        {
            "text_config": _QWEN2_7B,
            "vision_config": {
                "depth": 32, "hidden_size": 1280, "intermediate_size": 3420,
                "out_hidden_size": 3584,
            },
        },
    ),
    "qwen3-vl-8b": (
        "qwen3_vl",
        {
            "text_config": {
                "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
                "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
                "vocab_size": 151936,
            },
            "vision_config": {"out_hidden_size": 4096},
        },
    ),
    "smolvlm2-2.2b": (
        "smolvlm",
        {
            "text_config": {
                "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
                "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 32,
                "vocab_size": 49280,
            },
            "vision_config": {**_SO400M, "image_size": 384, "patch_size": 14},
            "scale_factor": 3,
        },
    ),
    "internvl3-8b": ("internvl", {"text_config": {**_QWEN2_7B, "vocab_size": 151674}}),
    "gemma-3-4b": (
        "gemma3",
        {
            "text_config": {
                "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
                "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
                "vocab_size": 262208,
            },
            "vision_config": {
                **_SO400M, "num_attention_heads": 16, "image_size": 896, "patch_size": 14,
            },
        },
    ),
}  # fmt: skip
"""The same of families whose towers and image tokens their configurations tell in forms of their
own."""


def write_config(directory: Path, document: dict[str, Any]) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(document))
    return directory


def built_of(directory: Path) -> Any:
    """The model that transformers makes of a configuration, its weights nowhere."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(directory))


@pytest.mark.parametrize("name", KNOWN_CONFIGS)
def test_known_sizes_are_those_of_their_configurations(name: str, tmp_path: Path) -> None:
    family, document = KNOWN_CONFIGS[name]
    directory = write_config(tmp_path, {"model_type": family, "dtype": "float16", **document})
    assert replace(from_config(directory), name=name) == KNOWN_MODELS[name]
    model = built_of(directory)
    built = sum(weight.numel() for weight in model.parameters())
    assert KNOWN_MODELS[name].num_parameters == pytest.approx(built, rel=0.002)
    language = sum(weight.numel() for weight in model.get_decoder().parameters())
    assert KNOWN_MODELS[name].matmul_parameters == pytest.approx(language, rel=0.002)


@pytest.mark.parametrize("name", OTHER_CONFIGS)
def test_known_sizes_of_other_families_are_those_of_their_language_models(
    name: str, tmp_path: Path
) -> None:
    family, document = OTHER_CONFIGS[name]
    known = KNOWN_MODELS[name]
    document = {"model_type": family, "dtype": known.dtype, **document}
    document["tie_word_embeddings"] = known.ties_head
    directory = write_config(tmp_path, document)
    told = replace(known, image_tokens=None, vision=None)
    found = from_config(directory)
    assert replace(found, name=name, image_tokens=None, vision=None) == told
    built = sum(weight.numel() for weight in built_of(directory).parameters())
    assert known.num_parameters == pytest.approx(built, rel=0.03)


def test_the_tiny_world_s_policy_is_known(tmp_path: Path) -> None:
    from csr.world.tokenizer import build_tokenizer
    from csr.world.vlm import PolicySettings, new_policy

    model = new_policy(PolicySettings(), len(build_tokenizer(closed=False)))
    model.config.save_pretrained(tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    found = from_config(write_config(tmp_path, document | {"dtype": "float32"}))
    assert replace(found, name="tiny-world") == KNOWN_MODELS["tiny-world"]


def test_an_adapter_is_as_large_as_peft_makes_it(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    from csr.trainers._lora import language_linear_names
    from tests.tiny_models import make_llava

    directory = make_llava(tmp_path / "llava")
    model = built_of(directory)
    adapted = get_peft_model(
        model, LoraConfig(r=3, target_modules=language_linear_names(model)), low_cpu_mem_usage=True
    )
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert from_config(directory).lora_parameters(3) == trained


def test_keys_of_a_grouped_model_are_fewer() -> None:
    llava, mistral = KNOWN_MODELS["llava-1.5-7b"], KNOWN_MODELS["llava-v1.6-mistral-7b"]
    assert llava.kv_bytes_per_token("bfloat16") == 2**19  # 2 x 32 layers x 4096 x 2 bytes
    assert mistral.kv_bytes_per_token("float16") == 2**17
    assert llava.kv_bytes_per_token("float32") == 2**20


def test_image_tokens_follow_the_grid(tmp_path: Path) -> None:
    vision = {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14}
    document = {"model_type": "llava", "dtype": "float32", "vision_config": vision}
    assert tokens_of(write_config(tmp_path, document)) == 4
    full = document | {"vision_feature_select_strategy": "full"}
    assert tokens_of(write_config(tmp_path, full)) == 5
    # The image whole (4), and one row of two tiles: two rows of four patches and a mark each.
    tiled = document | {"model_type": "llava_next", "image_grid_pinpoints": [[28, 56]]}
    geometry = from_config(write_config(tmp_path, tiled))
    assert (geometry.image_tokens, geometry.image_tokens_are_most) == (4 + 2 * 5, True)
    assert geometry.vision is not None
    assert geometry.vision.num_tiles == 3


def tokens_of(directory: Path) -> int | None:
    return from_config(directory).image_tokens


def test_a_family_without_a_grid_leaves_the_image_s_tokens_open(tmp_path: Path) -> None:
    directory = write_config(tmp_path, {"model_type": "qwen2_5_vl", "dtype": "bfloat16"})
    geometry = from_config(directory)
    assert geometry.image_tokens is None
    assert geometry.dtype == "bfloat16"


LLAVA = {"model_type": "llava", "dtype": "float16"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"model_type": "nothing-of-the-kind"}, "cannot be used as a model's configuration"),
        ({}, "it has no `model_type`"),
        ({"model_type": "llava"}, "lacks a `dtype`"),
        (LLAVA | {"dtype": "int8"}, "lacks a `dtype`"),
        (
            LLAVA | {"text_config": {"model_type": "llama", "intermediate_size": 0}},
            "lacks `intermediate_size`",
        ),
        (LLAVA | {"text_config": {"model_type": "mamba"}}, "lacks `num_attention_heads`"),
        (LLAVA | {"text_config": {"model_type": "mixtral"}}, "a mixture of experts"),
    ],
)
def test_a_configuration_that_lacks_something_says_what(
    document: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        from_config(write_config(tmp_path, document))


def test_code_of_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    document = {"model_type": "own", "auto_map": {"AutoConfig": "evil.Evil"}, "dtype": "float16"}
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: ...\n")
    with pytest.raises(ModelError):
        from_config(write_config(tmp_path, document))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["not JSON", "[1]", "[" * 100_000])
def test_a_file_that_is_no_configuration_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match="cannot be used"):
        from_config(tmp_path)


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        ("llava-hf/bakLlava-v1-hf", None, "--model-geometry"),
        ("/none/here", None, "--set policy.model=DIR"),
        ("any", "llava-1.5-7B", "Did you mean 'llava-1.5-7b'"),
    ],
)
def test_a_model_that_is_not_here_needs_its_sizes(
    model: str, given: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        geometry_of(model, given)


def test_shipped_recipes_name_models_whose_sizes_are_known() -> None:
    assert {*HUB_IDS.values(), "tiny-world"} == set(KNOWN_MODELS)
    recipes = [yaml.safe_load(path.read_text()) for path in RECIPES.glob("*.yaml")]
    models = {recipe["policy"]["model"] for recipe in recipes} - {"${world}/policy"}
    assert models <= set(HUB_IDS)
    assert geometry_of("google/gemma-3-4b-it", None).name == "gemma-3-4b"


def test_what_is_given_counts_before_what_is_here(tmp_path: Path) -> None:
    found: Geometry = geometry_of(str(write_config(tmp_path, LLAVA)), "llava-1.5-13b")
    assert found.name == "llava-1.5-13b"
