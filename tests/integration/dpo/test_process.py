"""How a run behaves: repeatable, silent, side by side with others, in several processes."""

import random
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from csr.checkpoints import base_policy
from csr.errors import EnvironmentFault
from csr.trainers.dpo import Config, build
from tests.dpo_runs import FAST, SEED, SHARDED, train
from tests.preference_pairs import make_pairs, write_pairs


def changed(**changes):
    """The fast settings with these, checked."""
    return Config.model_validate(FAST.model_dump() | changes)


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(llava, trained, tmp_path):
    checkpoint, _, pairs, pairs_path = llava
    first = trained["llava"].adapter_path
    again = train(checkpoint, pairs_path, tmp_path / "again").adapter_path
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    shuffled = write_pairs(tmp_path / "shuffled", list(reversed(pairs)))
    sharded = train(checkpoint, shuffled, tmp_path / "sharded").adapter_path
    weights = "adapter_model.safetensors"
    assert (first / weights).read_bytes() == (sharded / weights).read_bytes()
    other = train(checkpoint, pairs_path, tmp_path / "other", seed=SEED + 1).adapter_path
    assert (first / weights).read_bytes() != (other / weights).read_bytes()


def test_training_leaves_the_process_as_it_was(llava, tmp_path, monkeypatch):
    import os

    from accelerate.state import AcceleratorState, PartialState
    from transformers.utils import logging

    monkeypatch.setenv("CSR_TEST_MARK", "kept")
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)

    def around():
        states = [dict(state._shared_state) for state in (AcceleratorState, PartialState)]
        return dict(os.environ), logging.get_verbosity(), states

    before = around()
    train(llava[0], llava[3], tmp_path / "out")
    assert around() == before
    drawn = (torch.rand(1).item(), random.random(), np.random.rand())
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    assert drawn == (torch.rand(1).item(), random.random(), np.random.rand())


def test_nothing_is_printed(llava, tmp_path, capfd):
    train(llava[0], llava[3], tmp_path / "out")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_progress_counts_the_reference_and_every_epoch(llava, tmp_path):
    calls = []
    build(FAST).train(
        policy=base_policy(str(llava[0])),
        data_path=llava[3],
        output_dir=tmp_path / "out",
        seed=SEED,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(done, 18) for done in range(2, 19, 2)]


def test_embedded_images_train_like_files(llava, trained, tmp_path):
    checkpoint, processor, _, _ = llava
    pairs = make_pairs(tmp_path / "images", processor)
    path = write_pairs(tmp_path / "pairs", pairs, embed_images=True)
    shutil.rmtree(tmp_path / "images")
    result = train(checkpoint, path, tmp_path / "out")
    assert result.history[-1]["loss"] == trained["llava"].history[-1]["loss"]


def test_images_decoded_in_another_process_train_the_same(llava, trained, tmp_path):
    config = FAST.model_copy(update={"dataloader_workers": 1})
    result = train(llava[0], llava[3], tmp_path / "out", config=config)
    assert result.history == trained["llava"].history


@pytest.mark.slow
def test_two_processes_train_as_one_with_their_batches_together(llava, tmp_path):
    calls = []
    for name, changes in {
        "two": {"num_processes": 2, "batch_size": 1},
        "one": {"batch_size": 2},
    }.items():
        result = build(FAST.model_copy(update=changes)).train(
            policy=base_policy(str(llava[0])),
            data_path=llava[3],
            output_dir=tmp_path / name,
            seed=SEED,
            progress=lambda done, total: calls.append((done, total)),
        )
        calls.append(result.history)
        assert {path.name for path in (tmp_path / name).iterdir()} == {"model", "adapter"}
    expected = [(done, 18) for done in range(2, 19, 2)]
    assert calls[:9] == calls[10:19] == expected
    of_two, of_one = calls[9], calls[19]
    for figure in ("loss", "grad_norm", "margin", "chosen_logprob"):
        assert [row[figure] for row in of_two] == pytest.approx(
            [row[figure] for row in of_one], rel=1e-4, abs=1e-5
        )
    two, one = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("two", "one")
    )
    for name, weight in one.items():
        assert torch.allclose(two[name], weight, atol=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-5), ("bfloat16", 5e-3)])
def test_a_model_in_shards_trains_as_a_whole_one(llava, tmp_path, cpu_shards, dtype, atol):
    """In bfloat16 the first step is the same; what rounding makes of a weight grows with Adam."""
    histories = [
        train(llava[0], llava[3], tmp_path / name, config=changed(**changes, dtype=dtype)).history
        for name, changes in {"shards": SHARDED, "whole": {"batch_size": 2}}.items()
    ]
    assert histories[0][0] == pytest.approx(histories[1][0], rel=1e-5)
    for kind in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        shards, whole = (load_file(tmp_path / name / kind) for name in ("shards", "whole"))
        assert shards.keys() == whole.keys()
        for name, weight in whole.items():
            assert shards[name].dtype == weight.dtype
            assert torch.allclose(shards[name], weight, atol=atol), name


def test_a_launch_that_fails_tells_its_cause(llava, tmp_path, cpu_shards):
    """That the wrong layer is an error also shows that the right one was sharded."""
    settings = yaml.safe_load(SHARDED["accelerate_config"].read_text())
    settings["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"] = "NoSuchLayer"
    (tmp_path / "fsdp.yaml").write_text(yaml.safe_dump(settings))
    config = changed(**SHARDED | {"accelerate_config": tmp_path / "fsdp.yaml"})
    with pytest.raises(EnvironmentFault, match="the transformer layer class NoSuchLayer"):
        train(llava[0], llava[3], tmp_path / "out", config=config)
    assert not (tmp_path / "out").exists()
