"""What stops a run, what it says then, and that nothing half-made stays."""

import json
import math
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from csr.checkpoints import base_policy
from csr.errors import DataError, ModelError, NumericalError
from csr.trainers._isolation import preserved_globals
from csr.trainers.dpo import build
from csr.types import PolicyRef
from tests.dpo_runs import (
    FAST,
    Prepared,
    silent,
    train,
)
from tests.preference_pairs import make_pairs, write_pairs


def test_a_changed_image_stops_training_and_leaves_nothing(llava, tmp_path):
    checkpoint, processor, _, _ = llava
    pairs = make_pairs(tmp_path / "images", processor)
    path = write_pairs(tmp_path / "pairs", pairs)
    shutil.copy(tmp_path / "images" / "p001.png", tmp_path / "images" / "p004.png")
    with pytest.raises(DataError, match=r"p004\.png changed since the run began"):
        train(checkpoint, path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nan_in_the_weights_stops_before_training_and_leaves_nothing(llava, tmp_path):
    broken = shutil.copytree(llava[0], tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    name = next(name for name in weights if name.endswith("down_proj.weight"))
    weights[name][3, 5] = math.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        NumericalError, match=r"reference policy gives no finite .* pair p000#0, pair p001#0"
    ):
        train(broken, llava[3], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_runaway_learning_rate_stops_by_step_and_pairs_and_keeps_what_was_there(llava, tmp_path):
    out = tmp_path / "out"
    (out / "model").mkdir(parents=True)
    wild = FAST.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(
        NumericalError, match=r"in step \d+ on pair p00\d#0, pair p00\d#0"
    ) as caught:
        train(llava[0], llava[3], out, config=wild)
    assert "nothing was saved" in str(caught.value)
    assert [path.name for path in out.iterdir()] == ["model"]


def test_a_gradient_that_is_not_finite_stops_the_run(llava, tmp_path):
    with preserved_globals():
        prepared = Prepared(llava, llava[3], tmp_path)
        weight = next(p for n, p in prepared.trainer.model.named_parameters() if "lora_A" in n)
        weight.register_hook(lambda gradient: gradient * math.inf)
        with pytest.raises(NumericalError, match=r"gradient norm is (nan|inf) in step 1 on pair"):
            prepared.trainer.train()


def test_missing_weights_are_not_silently_random(llava, tmp_path):
    broken = shutil.copytree(llava[0], tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    del weights[next(name for name in weights if name.endswith("q_proj.weight"))]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights .*q_proj"):
        train(broken, llava[3], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_no_vision_language_model_is_refused(llava, tmp_path):
    broken = shutil.copytree(llava[0], tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    policy = replace(base_policy(str(broken)), name="broken")
    assert isinstance(policy, PolicyRef)
    with pytest.raises(ModelError):
        build(FAST).train(
            policy=policy, data_path=llava[3], output_dir=tmp_path / "out", seed=0, progress=silent
        )


@pytest.mark.slow
def test_an_error_in_one_of_two_processes_is_raised_here_and_leaves_nothing(llava, tmp_path):
    wild = FAST.model_copy(update={"learning_rate": 1e30, "num_processes": 2, "batch_size": 1})
    with pytest.raises(NumericalError, match=r"in step \d+ on pair p00\d#0"):
        train(llava[0], llava[3], tmp_path / "out", config=wild)
    assert not (tmp_path / "out").exists()
