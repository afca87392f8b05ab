"""The parts of the DPO trainer that need no model."""

import math
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from csr.errors import DataError, EnvironmentFault, ModelError, NumericalError
from csr.trainers._adapter_trainer import _final_metrics
from csr.trainers._arguments import num_warmup_steps
from csr.trainers._isolation import preserved_globals, staged_output
from csr.trainers._pairs import TrainingPair, pair_image, read_pairs
from csr.trainers._policy_files import pick_device, stored_dtype
from csr.trainers._trl import cache_reference
from csr.trainers._watch import TrainingWatch
from csr.trainers.dpo import Config
from csr.types import ImageRef


def make_pair(pair_id, **changes):
    values = {
        "pair_id": pair_id,
        "prompt_text": "Describe the image.",
        "image": ImageRef(uri="/a.png", sha256="00"),
        "image_bytes": None,
        "chosen_token_ids": (5, 2),
        "rejected_token_ids": (6, 7, 2),
    }
    return TrainingPair(**(values | changes))


def make_row(pair_id, **changes):
    row = {
        "pair_id": pair_id,
        "prompt_text": "Describe the image.",
        "images": [{"bytes": None, "path": "/a.png"}],
        "image_uri": "/a.png",
        "image_sha256": "00",
        "chosen_token_ids": [5, 2],
        "rejected_token_ids": [6, 7, 2],
    }
    return row | changes


def write_rows(file, rows):
    pq.write_table(pa.Table.from_pylist(rows), file)


def make_watch(num_pairs=3):
    calls = []
    pairs = [make_pair(f"p{i}") for i in range(num_pairs)]
    return TrainingWatch(
        [pair.name for pair in pairs], 2 * num_pairs, lambda *at: calls.append(at)
    ), calls


LOGS = {
    "loss": 0.69,
    "grad_norm": 1.5,
    "learning_rate": 1e-3,
    "rewards/margins": 0.2,
    "rewards/accuracies": 1.0,
    "rewards/chosen": 0.1,
    "rewards/rejected": -0.1,
    "logps/chosen": -9.0,
    "logps/rejected": -12.0,
    "mean_token_accuracy": 0.5,
}


def test_pairs_are_read_in_the_order_of_their_ids_whatever_the_sharding(tmp_path):
    write_rows(tmp_path / "b.parquet", [make_row("p1"), make_row("p0")])
    write_rows(tmp_path / "a.parquet", [make_row("p2", chosen_token_ids=[9])])
    pairs = read_pairs(tmp_path)
    assert [pair.pair_id for pair in pairs] == ["p0", "p1", "p2"]
    assert pairs[2].chosen_token_ids == (9,)
    assert pairs[0].image == ImageRef(uri="/a.png", sha256="00")


def test_no_pairs_is_said_plainly(tmp_path):
    with pytest.raises(DataError, match="no preference pairs under"):
        read_pairs(tmp_path)


def test_a_table_without_token_ids_is_refused_by_name(tmp_path):
    row = make_row("p0")
    del row["rejected_token_ids"]
    write_rows(tmp_path / "a.parquet", [row])
    with pytest.raises(DataError, match="lacks rejected_token_ids"):
        read_pairs(tmp_path)


def test_a_pair_with_an_empty_response_is_refused_by_name(tmp_path):
    write_rows(tmp_path / "a.parquet", [make_row("p0"), make_row("p7", rejected_token_ids=[])])
    with pytest.raises(DataError, match="'p7' has an empty rejected_token_ids"):
        read_pairs(tmp_path)


def test_a_damaged_table_is_a_data_error(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        read_pairs(tmp_path)


def test_an_embedded_image_that_is_not_the_named_one_is_refused():
    with pytest.raises(DataError, match="pair p3 does not have the hash"):
        pair_image(make_pair("p3", image_bytes=b"other bytes"))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reference_logprob_that_is_not_finite_names_its_pair(bad):
    watch, _ = make_watch()
    with pytest.raises(NumericalError, match="pair p2"):
        watch.reference([1, 2], [(-1.0, -2.0), (-1.0, bad)])
    with pytest.raises(NumericalError, match="pair p1"):  # of the image terms
        watch.reference([1, 2], [(-1.0, -2.0, -3.0, bad), (-1.0, -2.0, -3.0, 0.5)])


def test_a_loss_that_is_not_finite_names_step_and_pairs():
    watch, _ = make_watch()
    with pytest.raises(NumericalError, match="nan in step 4 on pair p0, pair p2"):
        watch.batch(4, [0, 2], math.nan)


def test_a_gradient_that_is_not_finite_names_all_pairs_of_its_step():
    watch, _ = make_watch()
    watch.batch(1, [0], 0.7)
    watch.step(1, LOGS)
    watch.batch(2, [1], 0.7)
    watch.batch(2, [2], 0.7)
    with pytest.raises(NumericalError, match="inf in step 2 on pair p1, pair p2"):
        watch.step(2, LOGS | {"grad_norm": math.inf})


def test_history_has_our_names_and_progress_counts_pairs():
    watch, calls = make_watch()
    watch.reference([0, 1, 2], [(-1.0, -2.0)] * 3)
    watch.batch(1, [2, 0], 0.7)
    watch.batch(1, [1], 0.7)
    watch.step(1, LOGS)
    assert calls == [(3, 6), (5, 6), (6, 6)]
    assert watch.history == [
        {
            "step": 1.0,
            "loss": 0.69,
            "grad_norm": 1.5,
            "learning_rate": 1e-3,
            "margin": 0.2,
            "reward_accuracy": 1.0,
            "chosen_reward": 0.1,
            "rejected_reward": -0.1,
            "chosen_logprob": -9.0,
            "rejected_logprob": -12.0,
        }
    ]


def test_final_metrics_are_means_over_the_last_tenth():
    history = [{"step": float(i), "loss": float(i), "margin": 2.0 * i} for i in range(1, 21)]
    metrics = _final_metrics(history, seconds=3.0)
    assert metrics == {
        "loss": 19.5,
        "margin": 39.0,
        "loss_first": 1.0,
        "num_steps": 20.0,
        "seconds": 3.0,
    }


def test_another_trl_without_the_extension_point_is_named():
    class OtherTrainer:
        pass

    with pytest.raises(EnvironmentFault, match="precompute_ref_logps"):
        cache_reference(OtherTrainer(), None, 1)


def test_staged_output_moves_only_what_is_named(tmp_path):
    out = tmp_path / "out"
    (out / ".training-old").mkdir(parents=True)
    (out / "model").mkdir()
    (out / "model" / "stale").write_text("x")
    with staged_output(out, ("model",)) as work:
        (work / "model").mkdir()
        (work / "model" / "weights").write_text("new")
        (work / "trl").mkdir()
        assert (out / "model" / "stale").exists()
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*")) == ["model", "model/weights"]


def fail_while_staging(out):
    with staged_output(out, ("model",)) as work:
        (work / "model").mkdir()
        raise RuntimeError


def test_staged_output_leaves_nothing_after_a_failure(tmp_path):
    out = tmp_path / "new" / "out"
    with pytest.raises(RuntimeError):
        fail_while_staging(out)
    assert not out.exists()


def test_a_failure_keeps_an_earlier_result(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("old")
    with pytest.raises(RuntimeError):
        fail_while_staging(tmp_path)
    assert [p.name for p in tmp_path.rglob("*")] == ["model", "weights"]


def test_the_environment_and_the_log_level_are_put_back(monkeypatch):
    from transformers import logging

    monkeypatch.setenv("CSR_TEST_KEPT", "1")
    monkeypatch.setenv("CSR_TEST_DELETED", "2")
    monkeypatch.delenv("CSR_TEST_ADDED", raising=False)
    level = logging.get_verbosity()
    with preserved_globals():
        os.environ["CSR_TEST_KEPT"] = "changed"
        os.environ["CSR_TEST_ADDED"] = "3"
        del os.environ["CSR_TEST_DELETED"]
        logging.set_verbosity_debug()
    found = [os.environ.get(f"CSR_TEST_{name}") for name in ("KEPT", "DELETED", "ADDED")]
    assert found == ["1", "2", None]
    assert logging.get_verbosity() == level


def test_stored_dtype_is_that_of_most_weights_and_quantised_ones_are_refused(tmp_path):
    import torch
    from safetensors.torch import save_file

    half, full = torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2)
    save_file({"a": half, "b": half.clone(), "c": full}, tmp_path / "model.safetensors")
    assert stored_dtype(tmp_path) == "bfloat16"
    save_file({"a": torch.zeros(2, dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="stored as I8"):
        stored_dtype(tmp_path)


def test_a_device_that_is_absent_is_said_plainly(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == "cpu"
    with pytest.raises(EnvironmentFault, match="sees no CUDA device"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (pick_device("auto"), pick_device("cpu")) == ("cuda", "cpu")


@pytest.mark.parametrize(
    ("num_pairs", "num_steps", "num_warmup"),
    [(22, 1, 0), (1056, 33, 0), (1057, 34, 1), (3200, 100, 3)],
)
def test_a_short_run_has_no_warmup(num_pairs, num_steps, num_warmup):
    """Else its only step, the first of the warm-up, would have a learning rate of 0."""
    config = Config()
    assert config.batch_size * config.gradient_accumulation_steps == 32
    assert -(-num_pairs // 32) == num_steps
    assert num_warmup_steps(config, num_pairs) == num_warmup
    assert num_warmup_steps(config.model_copy(update={"warmup_ratio": 0.0}), num_pairs) == 0


def test_config_defaults_are_those_of_the_method():
    config = Config()
    assert (config.lora_rank, config.lora_alpha, config.beta, config.num_epochs) == (
        128,
        256,
        0.1,
        1,
    )
    assert config.batch_size * config.gradient_accumulation_steps == 32
    assert config.learning_rate == 3e-6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_type": ("sigmoid", "sft"), "loss_weights": (1.0,)}, "1 values for 2 entries"),
        ({"loss_type": ("exo_pair",)}, "needs label_smoothing"),
        ({"loss_type": ("simpo",)}, "loss_type"),
        ({"learnign_rate": 1e-5}, "learnign_rate"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        Config(**changes)
