"""What cannot work is refused by `csr run`: one error, exit status 2, nothing written.

All commands run in one process, where the hub is asked and does not answer.
"""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file, save_file

from tests.cli_batch import NO_HUB, Answer, run_batch
from tests.photographs import HELD_OUT, TRAIN, copy_photographs, write_jsonl
from tests.tiny_models import make_llava, make_open_clip

pytestmark = pytest.mark.slow

REFUSED = {
    "an unreachable hub id": "neither a local directory nor a hub id that can be reached",
    "a malformed hub id": "neither a local directory nor a hub id that can be reached",
    "a missing relative path": "the path does not exist",
    "a missing absolute path": "the path does not exist",
    "one word": "the path does not exist",
    "the weights file itself": "is a file. Give the directory",
    "no config.json": "has no config.json",
    "a broken config.json": "cannot be read as JSON",
    "an unknown architecture": "Check that this release of transformers knows the model",
    "code in the checkpoint": "code from a checkpoint is never run",
    "pickled weights": "only pytorch_model.bin, which can run code when loaded",
    "cut weights": "that its files are whole",
    "a weight missing": "lacks 1 weights",
    "quantised weights": "a quantised checkpoint cannot be trained",
    "a NaN": "has NaN or infinite values in 1 weights (first: ",
    "a nested config.json": "cannot be read as JSON",
    "no processor": "save the model's processor there",
    "no tokenizer": "save the model's processor there",
    "a language model": "save the model's processor there",
    "no chat template": "has no chat template",
    "a broken chat template": "Mend its chat_template.jinja",
    "CLIP on an unreachable hub": "cannot be fetched from the hub",
    "CLIP's tag on an unreachable hub": "cannot be fetched from the hub",
    "CLIP without hf-hub": "Did you mean hf-hub:nobody/none?",
    "CLIP misspelt": "Did you mean ViT-B-32",
    "CLIP without weights": "needs `pretrained`",
    "CLIP's file missing": "neither a file nor a tag",
    "CLIP pickled": "Pickled weights",
    "CLIP with an infinity": "has NaN or infinite values in 1 weights (first: ",
    "CLIP cut": "is damaged and cannot be read",
    "CLIP's directory missing": "There is no CLIP directory",
    "CLIP's directory without description": "has no open_clip_config.json",
    "a held-out photograph under a second name": "Held-out images are never trained on",
    "no image folder": "the image folder",
    "a prompt longer than the context": "leaves no room in a context of 2,048",
    "an image outside the folder": "outside the image folder",
}
"""What is given -> a part of the error."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, prompts, a policy, a CLIP, and a recipe that would run."""
    root = tmp_path_factory.mktemp("refusals")
    copy_photographs(root / "images")
    write_jsonl(root / "train.jsonl", list(TRAIN)[:2])
    write_jsonl(root / "heldout.jsonl", HELD_OUT)
    images = str(root / "images")
    recipe = {
        "name": "refused",
        "data": {"prompts": str(root / "train.jsonl"), "images": images},
        "policy": {"model": str(make_llava(root / "llava"))},
        "sampler": "vllm",
        "source": "csr",
        "similarity": {"name": "clip", "model": str(make_open_clip(root / "clip"))},
        "trainer": "dpo",
        "evaluation": [
            {"name": "captions", "prompts": str(root / "heldout.jsonl"), "images": images}
        ],
    }
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return root


def variant(llava: Path, name: str, *, without: str | None = None, **files: str | bytes) -> Path:
    """A copy of the policy lacking one file, with others written (`__` stands for the dot)."""
    path = llava.parent / name
    shutil.copytree(llava, path)
    if without:
        (path / without).unlink()
    for file, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (path / file.replace("__", ".")).write_bytes(data)
    return path


def broken_policies(llava: Path) -> dict[str, Path]:
    weights = (llava / "model.safetensors").read_bytes()
    code = {"AutoConfig": "modeling.Config", "AutoModelForImageTextToText": "modeling.Model"}
    remote = {"model_type": "unheard_of", "auto_map": code}
    without_one = variant(llava, "partial")
    tensors = load_file(llava / "model.safetensors")
    dropped = {k: v for k, v in tensors.items() if "layers.0.mlp.down_proj" not in k}
    assert len(dropped) == len(tensors) - 1
    save_file(dropped, without_one / "model.safetensors", metadata={"format": "pt"})
    return {
        "no config.json": variant(llava, "bare", without="config.json"),
        "a broken config.json": variant(llava, "broken", config__json='{"model_type": '),
        "an unknown architecture": variant(
            llava, "unknown", config__json=json.dumps({"model_type": "unheard_of"})
        ),
        "code in the checkpoint": variant(
            llava,
            "remote",
            config__json=json.dumps(remote),
            modeling__py="raise SystemExit('code of the checkpoint ran')",
        ),
        "pickled weights": variant(
            llava, "pickled", without="model.safetensors", pytorch_model__bin=b"\x80"
        ),
        "cut weights": variant(llava, "cut", model__safetensors=weights[: len(weights) // 2]),
        "a weight missing": without_one,
        "quantised weights": quantised(llava),
        "a NaN": with_one_value(variant(llava, "nan") / "model.safetensors", float("nan")),
        "a nested config.json": variant(llava, "nested", config__json="[" * 100_000),
        "no processor": variant(llava, "blind", without="processor_config.json"),
        "no tokenizer": variant(llava, "wordless", without="tokenizer.json"),
        "a language model": language_model(llava),
        "no chat template": variant(llava, "speechless", without="chat_template.jinja"),
        "a broken chat template": variant(llava, "mute", chat_template__jinja="{{ not jinja"),
    }


def with_one_value(file: Path, value: float) -> Path:
    """The directory, after one value of the first weight was changed."""
    tensors = load_file(file)
    first = next(iter(sorted(tensors)))
    tensors[first].flat[0] = value
    save_file(tensors, file, metadata={"format": "pt"})
    return file.parent


def quantised(llava: Path) -> Path:
    """Every weight as whole numbers of eight bits."""
    path = variant(llava, "quantised")
    tensors = load_file(llava / "model.safetensors")
    whole = {name: (tensor * 64).astype("int8") for name, tensor in tensors.items()}
    save_file(whole, path / "model.safetensors", metadata={"format": "pt"})
    return path


def language_model(llava: Path) -> Path:
    """A text-only Llama with LLaVA's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    path = llava.parent / "language_model"
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=400, num_attention_heads=2, **sizes))
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(llava).save_pretrained(path)
    return path


def broken_clips(clip: Path) -> dict[str, list[str]]:
    nameless = clip.parent / "nameless_clip"
    shutil.copytree(clip, nameless)
    (nameless / "open_clip_config.json").unlink()
    endless, cut = (shutil.copytree(clip, clip.parent / name) for name in ("endless", "cut_clip"))
    weights_name = next(clip.glob("*.safetensors")).name
    with_one_value(endless / weights_name, float("inf"))
    (cut / weights_name).write_bytes((clip / weights_name).read_bytes()[:-7])
    pickled = clip.parent / "clip.pt"
    pickled.write_bytes(b"\x80")
    model, weights = "similarity.model=", "similarity.pretrained="
    return {
        "CLIP on an unreachable hub": [f"{model}hf-hub:nobody/none"],
        "CLIP's tag on an unreachable hub": [f"{model}ViT-L-14-336", f"{weights}openai"],
        "CLIP without hf-hub": [f"{model}nobody/none"],
        "CLIP misspelt": [f"{model}ViT-B-33", f"{weights}openai"],
        "CLIP without weights": [f"{model}ViT-B-32"],
        "CLIP's file missing": [f"{model}ViT-B-32", f"{weights}{clip}/none.safetensors"],
        "CLIP pickled": [f"{model}ViT-B-32", f"{weights}{pickled}"],
        "CLIP with an infinity": [f"{model}{endless}"],
        "CLIP cut": [f"{model}{cut}"],
        "CLIP's directory missing": [f"{model}/no/such/clip"],
        "CLIP's directory without description": [f"{model}{nameless}"],
    }


def broken_data(folder: Path) -> dict[str, list[str]]:
    heldout = folder / "images" / next(iter(HELD_OUT))
    shutil.copyfile(heldout, folder / "images/second name.jpg")
    leaking = write_jsonl(folder / "leaking.jsonl", [*list(TRAIN)[:2], "second name.jpg"])
    outside = write_jsonl(folder / "outside.jsonl", ["../outside.jpg"])
    shutil.copyfile(heldout, folder / "outside.jpg")
    long = folder / "long.jsonl"
    long.write_text(json.dumps({"id": "1", "image": next(iter(TRAIN)), "input": "a b " * 2040}))
    return {
        "a held-out photograph under a second name": [f"data.prompts={leaking}"],
        "no image folder": [f"data.images={folder}/none"],
        "an image outside the folder": [f"data.prompts={outside}"],
        "a prompt longer than the context": [f"data.prompts={long}"],
    }


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, Answer]:
    """Every mistake's answer. A home of its own tells who wrote anything."""
    given = {
        "an unreachable hub id": "nobody/no-such-model",
        "a malformed hub id": "own er/na me",
        "a missing relative path": "./no/such/directory",
        "a missing absolute path": "/no/such/directory",
        "one word": "no-such-model",
        "the weights file itself": folder / "llava/model.safetensors",
        **broken_policies(folder / "llava"),
    }
    settings = {name: [f"policy.model={value}"] for name, value in given.items()}
    settings |= broken_clips(folder / "clip") | broken_data(folder)
    commands = {
        name: [
            "run",
            str(folder / "recipe.yaml"),
            "--home",
            str(folder / f"home {number}"),
            *(word for setting in changed for word in ("--set", setting)),
        ]
        for number, (name, changed) in enumerate(settings.items())
    }
    return run_batch(commands, variables=NO_HUB)


def test_every_mistake_is_made(answers: dict[str, Answer]) -> None:
    assert answers.keys() == REFUSED.keys()


@pytest.mark.parametrize("given", REFUSED)
def test_a_mistake_is_one_error_and_leaves_nothing(answers: dict[str, Answer], given: str) -> None:
    answer = answers[given]
    assert answer.status == 2, answer.stderr
    assert not answer.made_home
    assert answer.stdout == ""
    lines = answer.stderr.strip().splitlines()
    assert len(lines) == 1, answer.stderr
    assert lines[0].startswith("error: ")
    assert REFUSED[given] in lines[0]
