"""Supervised fine-tuning on a tiny LLaVA: what is imitated, by which weight, and how it resumes."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from csr.checkpoints import base_policy
from csr.errors import DataError
from csr.rendering import load_processor, response_token_ids
from csr.trainers import sft
from csr.trainers._demonstrations import read_demonstrations
from csr.types import Demonstration
from storage.critique import demonstrations_to_table
from storage.tables import shard_path, write_table
from tests.dpo_runs import plain_logprobs, plain_model, silent
from tests.preference_pairs import make_pairs
from tests.tiny_models import make_llava

FAST = sft.Config(
    batch_size=2,
    gradient_accumulation_steps=2,
    lora_rank=4,
    lora_alpha=8,
    learning_rate=1e-3,
    num_epochs=2,
    warmup_ratio=0.0,
    checkpoint_every_num_steps=1,
)
"""On six demonstrations: two steps an epoch."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_llava(tmp_path_factory.mktemp("llava") / "checkpoint")


@pytest.fixture(scope="module")
def demonstrations(checkpoint, tmp_path_factory):
    """Six, of which the last two were sampled by nobody."""
    pairs = make_pairs(tmp_path_factory.mktemp("images"), load_processor(str(checkpoint)))
    return [
        Demonstration(
            demonstration_id=pair.pair_id,
            prompt=pair.prompt,
            text=pair.chosen.text,
            token_ids=pair.chosen.token_ids if number < 4 else None,
            weight=1.0,
            kind="rationale",
            source="test",
        )
        for number, pair in enumerate(pairs)
    ]


def write(folder, demonstrations):
    folder.mkdir(parents=True)
    write_table(shard_path(folder, 0), demonstrations_to_table(demonstrations, iteration=1))
    return folder


def train(checkpoint, table, output, config=FAST, keep_in=None):
    return sft.build(config).train(
        policy=base_policy(str(checkpoint)),
        data_path=table,
        output_dir=output,
        seed=7,
        progress=silent,
        checkpoint_dir=keep_in,
    )


def losses(checkpoint, demonstrations):
    """Mean -log p of each response, by the model itself, one unpadded sequence at a time."""
    model, processor = plain_model(checkpoint), load_processor(str(checkpoint))
    found = []
    for each in demonstrations:
        ids = each.token_ids or response_token_ids(processor, each.prompt.text, each.text)
        logprobs = plain_logprobs(model, processor, each.prompt, ids)
        found.append(-sum(logprobs) / len(logprobs))
    return found


def test_the_loss_is_that_of_the_model_itself_and_falls(checkpoint, demonstrations, tmp_path):
    config = FAST.model_copy(update={"batch_size": 3, "learning_rate": 1e-2, "num_epochs": 6})
    weights = (3.0, 1.0, 1.0, 1.0, 0.5, 0.5)
    weighted = [
        dataclasses.replace(each, weight=weight)
        for each, weight in zip(demonstrations, weights, strict=True)
    ]
    result = train(checkpoint, write(tmp_path / "table", weighted), tmp_path / "out", config)
    before = losses(checkpoint, demonstrations)
    expected = sum(w * loss for w, loss in zip(weights, before, strict=True)) / 6
    assert result.history[0]["loss"] == pytest.approx(expected, rel=1e-4)
    assert result.history[0]["negative_logprob"] == pytest.approx(sum(before) / 6, rel=1e-4)
    after = losses(result.model_path, demonstrations)
    assert sum(after) < 0.9 * sum(before)
    assert result.metrics["num_demonstrations"] == 6
    assert result.metrics["num_steps"] == 6


def test_a_weight_of_nothing_teaches_nothing(checkpoint, demonstrations, tmp_path):
    """Two runs that differ in the text of a demonstration whose weight is 0 end alike."""
    first, second = demonstrations[:2]
    policies = []
    for number, text in enumerate((first.token_ids, second.token_ids)):
        ignored = dataclasses.replace(first, weight=0.0, token_ids=text)
        table = write(tmp_path / f"table{number}", [ignored, second])
        result = train(checkpoint, table, tmp_path / f"out{number}")
        policies.append(load_file(result.model_path / "model.safetensors"))
    for name, tensor in policies[0].items():
        torch.testing.assert_close(tensor, policies[1][name], rtol=0, atol=1e-6)


def test_a_stopped_training_goes_on_to_the_same_policy(checkpoint, demonstrations, tmp_path):
    table = write(tmp_path / "table", demonstrations)
    whole = train(checkpoint, table, tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop(done, total):
        if done > 6:
            raise Stopped

    keep = tmp_path / "kept"
    with pytest.raises(Stopped):
        sft.build(FAST).train(
            policy=base_policy(str(checkpoint)), data_path=table, output_dir=tmp_path / "stopped",
            seed=7, progress=stop, checkpoint_dir=keep,
        )  # fmt: skip
    assert list(keep.glob("step-*"))
    resumed = train(checkpoint, table, tmp_path / "resumed", keep_in=keep)
    weights = [load_file(r.model_path / "model.safetensors") for r in (whole, resumed)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert resumed.history == whole.history


@pytest.mark.parametrize("num_steps", [3, 7])
def test_the_number_of_steps_can_be_fixed(checkpoint, demonstrations, tmp_path, num_steps):
    """An epoch has two: seven steps go round three and a half times."""
    config = FAST.model_copy(update={"num_steps": num_steps})
    seen = []
    table = write(tmp_path / "table", demonstrations)
    result = sft.build(config).train(
        policy=base_policy(str(checkpoint)), data_path=table, output_dir=tmp_path / "out",
        seed=7, progress=lambda *at: seen.append(at),
    )  # fmt: skip
    assert len(result.history) == num_steps
    assert {total for _, total in seen} == {4 * num_steps}


def test_an_empty_table_is_told(tmp_path):
    with pytest.raises(DataError, match="no demonstrations under"):
        read_demonstrations(write(tmp_path / "table", []))


def test_a_table_of_something_else_is_told(tmp_path, demonstrations):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="no table to train on: it lacks demonstration_id"):
        read_demonstrations(tmp_path / "other.parquet")
