"""What training leaves: which weights moved, under which names, and how the result speaks."""

import json
import math
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from csr.trainers._policy_files import stored_dtype
from csr.trainers.dpo import build
from tests.dpo_runs import (
    FAST,
    MAKERS,
    adapted_names,
    plain_logprobs,
    plain_model,
    train,
)


@pytest.mark.parametrize("family", MAKERS)
def test_training_learns_the_preferences(trained, family):
    result = trained[family]
    assert result.metrics["num_pairs"] == 6.0
    assert result.metrics["num_steps"] == len(result.history) == 6.0
    assert result.metrics["margin"] > 0.05
    assert result.metrics["reward_accuracy"] == 1.0
    assert result.metrics["loss"] < result.metrics["loss_first"]


@pytest.mark.parametrize("family", MAKERS)
def test_the_first_loss_is_log_two_because_the_policy_is_its_own_reference(trained, family):
    assert trained[family].metrics["loss_first"] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("family", MAKERS)
def test_only_the_language_models_linear_layers_move(families, trained, family):
    before = load_file(families[family][0] / "model.safetensors")
    after = load_file(trained[family].model_path / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    adapter_file = trained[family].adapter_path / "adapter_model.safetensors"
    assert moved == adapted_names(families[family][0] / "model.safetensors", adapter_file)
    # Two layers, seven linear layers each: attention q, k, v, o and MLP gate, up, down.
    assert len(moved) == 14
    for part in ("vision", "visual", "projector", "connector", "merger", "lm_head", "embed"):
        assert not any(part in name for name in moved), part


@pytest.mark.parametrize("family", MAKERS)
def test_names_and_types_of_the_weights_are_those_of_the_old_checkpoint(families, trained, family):
    before = load_file(families[family][0] / "model.safetensors")
    after = load_file(trained[family].model_path / "model.safetensors")
    assert {n: (t.dtype, t.shape) for n, t in after.items()} == {
        n: (t.dtype, t.shape) for n, t in before.items()
    }


@pytest.mark.parametrize("family", MAKERS)
def test_every_other_file_is_copied_byte_for_byte(families, trained, family):
    checkpoint, model_path = families[family][0], trained[family].model_path
    names = {file.name for file in checkpoint.iterdir()}
    assert {file.name for file in model_path.iterdir()} == names
    for name in names - {"model.safetensors"}:
        assert (model_path / name).read_bytes() == (checkpoint / name).read_bytes(), name


@pytest.mark.parametrize("family", MAKERS)
def test_the_merged_model_speaks_like_the_model_with_its_adapter(families, trained, family):
    checkpoint, processor, pairs, _ = families[family]
    # In 64 bits, so that what differs is the stored weights and not the arithmetic.
    base = plain_model(checkpoint, torch.float64)
    merged = plain_model(trained[family].model_path, torch.float64)
    adapted = PeftModel.from_pretrained(
        plain_model(checkpoint, torch.float64), trained[family].adapter_path
    ).double()
    for pair in pairs[:3]:
        of_merged, of_adapted, of_base = (
            plain_logprobs(model, processor, pair.prompt, pair.rejected.token_ids)
            for model in (merged, adapted.eval(), base)
        )
        assert of_merged == pytest.approx(of_adapted, abs=1e-5)
        assert max(abs(a - b) for a, b in zip(of_merged, of_base, strict=True)) > 1e-3


@pytest.mark.parametrize("family", MAKERS)
def test_score_is_the_models_own_logprob_of_each_token(families, family):
    checkpoint, processor, pairs, _ = families[family]
    responses = [pair.rejected.token_ids for pair in pairs[:3]]
    scored = build(FAST).score(str(checkpoint), [p.prompt for p in pairs[:3]], responses)
    model = plain_model(checkpoint)
    for pair, response, values in zip(pairs[:3], responses, scored, strict=True):
        assert values == pytest.approx(
            plain_logprobs(model, processor, pair.prompt, response), abs=5e-5
        )


def test_only_safe_files_are_left(trained):
    allowed = {".safetensors", ".json", ".jinja"}
    for result in trained.values():
        root = result.model_path.parent
        assert {path.name for path in root.iterdir()} == {"model", "adapter"}
        files = [path for path in root.rglob("*") if path.is_file()]
        assert {path.suffix for path in files} == allowed
        assert not [path for path in files if path.read_bytes()[:2] in (b"\x80\x02", b"PK")]


def test_the_adapters_configuration_has_one_order(trained):
    for result in trained.values():
        config = json.loads((result.adapter_path / "adapter_config.json").read_text())
        assert config["target_modules"] == sorted(config["target_modules"])
        assert list(config) == sorted(config)


def test_no_pickle_is_written_even_for_a_while(llava, tmp_path, monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError("torch.save was called")

    monkeypatch.setattr(torch, "save", refuse)
    train(llava[0], llava[3], tmp_path / "out")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_next_policy_is_stored_in_the_type_of_the_last(llava, tmp_path, dtype):
    half = shutil.copytree(llava[0], tmp_path / "half")
    weights = {n: t.to(dtype) for n, t in load_file(half / "model.safetensors").items()}
    save_file(weights, half / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((half / "config.json").read_text())
    config["dtype"] = str(dtype).removeprefix("torch.")
    (half / "config.json").write_text(json.dumps(config))
    result = train(half, llava[3], tmp_path / "out")
    assert stored_dtype(result.model_path) == str(dtype).removeprefix("torch.")
    after = load_file(result.model_path / "model.safetensors")
    frozen = [name for name in weights if "proj.weight" not in name or "vision" in name]
    assert len(frozen) > 20
    assert all(torch.equal(weights[name], after[name]) for name in frozen)
    assert result.metrics["loss_first"] == pytest.approx(math.log(2), abs=0.02)
