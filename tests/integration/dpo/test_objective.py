"""What is optimised: which tokens, against which reference, by which loss."""

import math
from dataclasses import replace

import pytest
import torch

from csr.images import load_image
from csr.rendering import prompt_token_ids
from csr.trainers._batches import PairCollator, response_batch
from csr.trainers._isolation import preserved_globals
from csr.trainers._pairs import read_pairs
from csr.trainers._shared_images import share_image_features
from csr.trainers._shared_prompts import _packing, share_prompts
from csr.trainers._trl import cache_reference
from tests.dpo_runs import (
    FAST,
    MAKERS,
    Prepared,
    plain_logprobs,
    plain_model,
    train,
)
from tests.preference_pairs import make_pairs, write_pairs

FIRST_LAYERS = ("language_model.layers.0", "text_model.layers.0")
TOWERS = ("vision_tower", "visual", "vision_model")


def test_reference_logprobs_are_the_sampled_tokens_and_no_others(llava, tmp_path):
    """The rejected term must be the log-probability of the rejected response itself."""
    checkpoint, processor, pairs, pairs_path = llava
    model = plain_model(checkpoint)
    with preserved_globals():
        prepared = Prepared(llava, pairs_path, tmp_path)
        cache_reference(prepared.trainer, prepared.collator, batch_size=4)
    for pair, known in zip(pairs, prepared.collator.reference_logprobs, strict=True):
        own = [
            sum(plain_logprobs(model, processor, pair.prompt, side.token_ids))
            for side in (pair.chosen, pair.rejected)
        ]
        assert known == pytest.approx(own, abs=1e-4)


def test_the_policys_rejected_term_is_a_forward_pass_on_the_rejected_text(llava, tmp_path):
    """All pairs in one step, whose figures are those of the untrained policy."""
    checkpoint, processor, pairs, pairs_path = llava
    config = FAST.model_copy(update={"batch_size": len(pairs), "num_epochs": 1})
    [row] = train(checkpoint, pairs_path, tmp_path / "out", config=config).history
    model = plain_model(checkpoint)
    for name in ("chosen", "rejected"):
        own = [
            sum(plain_logprobs(model, processor, pair.prompt, getattr(pair, name).token_ids))
            for pair in pairs
        ]
        assert row[f"{name}_logprob"] == pytest.approx(sum(own) / len(own), abs=1e-4)


def test_the_reference_costs_one_pass_over_the_pairs(llava, tmp_path):
    """Images that the vision tower encodes: one a pair for the reference, one in each epoch."""
    with preserved_globals():
        prepared = Prepared(llava, llava[3], tmp_path)
        encoded = []
        prepared.trainer.model.base_model.model.model.vision_tower.register_forward_pre_hook(
            lambda module, args: encoded.append(len(args[0]))
        )
        cache_reference(prepared.trainer, prepared.collator, batch_size=2)
        prepared.trainer.train()
    num_pairs = len(llava[2])
    assert sum(encoded) == num_pairs * (1 + FAST.num_epochs)


@pytest.mark.parametrize("name", MAKERS)
def test_an_image_is_encoded_once_for_both_responses(families, name):
    """The same logits to the last bit, from half the images."""
    checkpoint, processor, pairs, _ = families[name]
    batch = response_batch(
        processor,
        [pair.prompt.text for pair in pairs],
        [load_image(pair.prompt.image) for pair in pairs],
        [p.chosen.token_ids for p in pairs] + [p.rejected.token_ids for p in pairs],
    )
    del batch["completion_mask"]
    num_rows = len(batch["pixel_values"])
    model = plain_model(checkpoint)
    encoded = []
    tower = next(m for n, m in model.named_modules() if n.split(".")[-1] in TOWERS)
    tower.register_forward_pre_hook(
        lambda module, args, kwargs: encoded.append(
            len(args[0] if args else next(iter(kwargs.values())))
        ),
        with_kwargs=True,
    )
    with torch.no_grad():
        whole = model(**batch).logits
        share_image_features(model)
        shared = model(**batch).logits
        alone = {k: v.tensor_split(2)[0] for k, v in batch.items()}
        first_half = model(**alone).logits
    assert torch.equal(whole, shared)
    assert encoded[0] == 2 * encoded[1]
    assert encoded[0] % num_rows == 0
    assert first_half == pytest.approx(shared.tensor_split(2)[0], abs=1e-4)


@pytest.mark.parametrize("name", MAKERS)
def test_a_prompt_is_read_once_for_both_responses(families, name):
    """The same logits and gradients up to rounding, from fewer tokens."""
    checkpoint, processor, pairs, _ = families[name]
    batch = response_batch(
        processor,
        [pair.prompt.text for pair in pairs],
        [load_image(pair.prompt.image) for pair in pairs],
        [p.chosen.token_ids for p in pairs] + [p.rejected.token_ids for p in pairs],
    )
    del batch["completion_mask"]
    real = batch["attention_mask"].bool()
    assert not real.all(), "some sequences are shorter"
    found = {}
    for way in ("apart", "shared"):
        model = plain_model(checkpoint)
        if way == "shared":
            share_prompts(model)
        sizes = []
        [layer] = {
            name: module for name, module in model.named_modules() if name.endswith(FIRST_LAYERS)
        }.values()
        layer.register_forward_pre_hook(
            lambda module, args, kwargs, sizes=sizes: sizes.append(
                (args[0] if args else kwargs["hidden_states"]).shape[:2].numel()
            ),
            with_kwargs=True,
        )
        logits = model(**batch, use_cache=False).logits[real]
        logits.log_softmax(-1).square().mean().backward()
        found[way] = logits.detach(), layer.mlp.down_proj.weight.grad, sizes[0]
    assert torch.allclose(found["shared"][0], found["apart"][0], atol=1e-4)
    gradients = found["shared"][1], found["apart"][1]
    assert torch.allclose(*gradients, atol=1e-5 * gradients[1].abs().max().item())
    if name == "qwen2_5_vl":  # its positions have three parts
        assert found["shared"][2] == found["apart"][2]
    else:
        assert found["shared"][2] < 0.9 * found["apart"][2]


def test_rejected_tokens_do_not_see_chosen_ones_where_prompts_are_shared():
    embeddings = torch.arange(12.0).reshape(2, 6, 1)
    embeddings[1, :3] = embeddings[0, :3]
    real = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]).bool()
    packing = _packing(embeddings, real)
    assert packing.rows.tolist() == [[0, 0, 0, 0, 0, 1, 1, 1]]
    assert packing.places.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5]]
    assert packing.visible[0, 6].nonzero().flatten().tolist() == [0, 1, 2, 5, 6]
    assert packing.visible[0, 4].nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
    assert packing.origins.tolist() == [[0, 1, 2, 3, 4, 0], [0, 1, 2, 5, 6, 7]]
    back = packing.unpacked(packing.inputs(embeddings)["inputs_embeds"])
    assert torch.equal(back[real], embeddings[real])


def test_the_second_iterations_reference_is_the_first_iterations_policy(llava, trained, tmp_path):
    checkpoint, processor, pairs, pairs_path = llava
    first = plain_model(trained["llava"].model_path)
    base = plain_model(checkpoint)
    with preserved_globals():
        prepared = Prepared(llava, pairs_path, tmp_path, checkpoint=trained["llava"].model_path)
        cache_reference(prepared.trainer, prepared.collator, batch_size=2)
    known = [both[1] for both in prepared.collator.reference_logprobs]
    of_first, of_base = (
        [sum(plain_logprobs(m, processor, p.prompt, p.rejected.token_ids)) for p in pairs]
        for m in (first, base)
    )
    assert known == pytest.approx(of_first, abs=1e-4)
    assert min(abs(a - b) for a, b in zip(known, of_base, strict=True)) > 0.01


def test_cached_and_uncached_reference_give_the_same_losses(llava, trained, tmp_path):
    """TRL computes the reference itself, in every step, with the adapter switched off."""
    with preserved_globals():
        prepared = Prepared(llava, llava[3], tmp_path)
        assert prepared.trainer.precompute_ref_logps is False
        prepared.trainer.train()
    cached = [row["loss"] for row in trained["llava"].history]
    uncached = [row["loss"] for row in prepared.watch.history]
    assert len(cached) == 6
    assert cached == pytest.approx(uncached, abs=1e-6)


def test_the_cached_reference_is_what_the_loss_uses(llava, tmp_path):
    """With every reference rejected log-prob 10 nats too high, the margin is beta * 10."""
    with preserved_globals():
        prepared = Prepared(llava, llava[3], tmp_path)
        cache_reference(prepared.trainer, prepared.collator, batch_size=2)
        known = prepared.collator.reference_logprobs
        prepared.collator.reference_logprobs = [(c, r + 10.0) for c, r in known]
        prepared.trainer.train()
    assert prepared.watch.history[0]["loss"] == pytest.approx(math.log1p(math.exp(-1.0)), abs=1e-5)


@pytest.mark.parametrize("family", MAKERS)
def test_the_prompt_in_training_is_the_prompt_in_sampling(families, family):
    _, processor, pairs, pairs_path = families[family]
    batch = PairCollator(processor, read_pairs(pairs_path))([{"row": 0}, {"row": 3}])
    image_token = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    sides = [pairs[0].chosen, pairs[3].chosen, pairs[0].rejected, pairs[3].rejected]
    for row, side in enumerate(sides):
        length = int(batch["attention_mask"][row].sum())
        ids = batch["input_ids"][row, :length].tolist()
        prompt = ids[: length - side.num_tokens]
        assert ids[length - side.num_tokens :] == list(side.token_ids)
        assert batch["completion_mask"][row].tolist() == [0] * len(prompt) + [
            1
        ] * side.num_tokens + [0] * (batch["input_ids"].shape[1] - length)
        first = prompt.index(image_token)
        count = prompt.count(image_token)
        assert prompt[first : first + count] == [image_token] * count, "one run of image tokens"
        collapsed = [*prompt[:first], image_token, *prompt[first + count :]]
        if family != "smolvlm":  # whose processor sets markers around the image tokens
            assert collapsed == prompt_token_ids(processor, pairs[0].prompt.text)
        assert processor.tokenizer.decode(prompt).lower().count("assistant") == 1
        if processor.tokenizer.bos_token_id is not None:
            assert prompt.count(processor.tokenizer.bos_token_id) == 1


def test_a_long_prompt_loses_no_image_token(llava, tmp_path):
    """Longer than TRL's default limit of 1024 tokens, which would cut the responses away."""
    checkpoint, processor, _, _ = llava
    pairs = make_pairs(tmp_path / "images", processor, num_pairs=2, prompt="circle " * 1100)
    path = write_pairs(tmp_path / "pairs", pairs)
    batch = PairCollator(processor, read_pairs(path))([{"row": 0}])
    image_token = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert batch["input_ids"].shape[1] > 1100
    assert (batch["input_ids"] == image_token).sum(dim=1).tolist() == [16, 16]
    assert batch["completion_mask"].sum().item() == (
        pairs[0].chosen.num_tokens + pairs[0].rejected.num_tokens
    )
    result = train(
        checkpoint, path, tmp_path / "out", config=FAST.model_copy(update={"num_epochs": 1})
    )
    assert result.metrics["loss_first"] == pytest.approx(math.log(2), abs=1e-5)


def test_responses_without_eos_get_none(llava):
    _, processor, pairs, _ = llava
    cut = pairs[0].chosen.token_ids[:-1]
    image = load_image(pairs[0].prompt.image)
    batch = response_batch(processor, [pairs[0].prompt.text], [image], [cut, cut])
    assert batch["input_ids"][0].tolist()[-len(cut) :] == list(cut)
    assert batch["pixel_values"].shape[0] == 2


def test_several_loss_terms_are_summed_with_their_weights(llava, trained, tmp_path):
    """At the start DPO's term is log 2; TRL's sft term is the mean over the chosen tokens."""
    checkpoint, processor, pairs, pairs_path = llava
    config = FAST.model_copy(
        update={"loss_type": ("sigmoid", "sft"), "loss_weights": (0.5, 2.0), "batch_size": 6}
    )
    result = train(checkpoint, pairs_path, tmp_path / "out", config=config)
    model = plain_model(checkpoint)
    tokens = [
        value
        for pair in pairs
        for value in plain_logprobs(model, processor, pair.prompt, pair.chosen.token_ids)
    ]
    expected = 0.5 * math.log(2) - 2.0 * sum(tokens) / len(tokens)
    assert result.metrics["loss_first"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("ld_alpha", [0.0, 0.25])
def test_ld_alpha_weighs_what_is_longer_than_the_other_side(llava, tmp_path, ld_alpha):
    """In policy and reference alike: else the first loss would not be log 2."""
    checkpoint, processor, pairs, pairs_path = llava
    config = FAST.model_copy(
        update={"batch_size": len(pairs), "num_epochs": 1, "ld_alpha": ld_alpha}
    )
    result = train(checkpoint, pairs_path, tmp_path / "out", config=config)
    assert result.metrics["loss_first"] == pytest.approx(math.log(2), abs=1e-5)
    model = plain_model(checkpoint)
    expected = []
    for pair in pairs:
        both = [
            plain_logprobs(model, processor, pair.prompt, side.token_ids)
            for side in (pair.chosen, pair.rejected)
        ]
        shared = min(map(len, both))
        expected.append(sum(both[0][:shared]) + ld_alpha * sum(both[0][shared:]))
    assert any(pair.chosen.num_tokens > pair.rejected.num_tokens for pair in pairs)
    [row] = result.history
    assert row["chosen_logprob"] == pytest.approx(sum(expected) / len(expected), abs=1e-4)


def test_a_prefix_that_both_sides_say_adds_nothing_to_the_gradient(llava, tmp_path):
    """What pairs of sibling sentences rely on. The prefix is said by both under the same image,
    so its log-probabilities are the same numbers, and their difference is none.
    """
    pairs = llava[2]
    prefix = pairs[0].chosen.token_ids[:-1]
    siblings = [
        replace(pair, **{
            name: replace(
                getattr(pair, name),
                token_ids=(*prefix, *getattr(pair, name).token_ids),
                num_tokens=len(prefix) + getattr(pair, name).num_tokens,
            )
            for name in ("chosen", "rejected")
        })
        for pair in pairs
    ]  # fmt: skip
    path = write_pairs(tmp_path / "siblings", siblings)
    with preserved_globals():
        prepared = Prepared(llava, path, tmp_path / "work")
        batch = prepared.collator([{"row": 0}])
        wanted = ("input_ids", "attention_mask", "pixel_values")
        logits = prepared.trainer.model(**{name: batch[name] for name in wanted}).logits
    start = int((batch["completion_mask"][0] == 1).nonzero()[0])
    said = slice(start - 1, start - 1 + len(prefix))
    assert (logits[0, said] - logits[1, said]).abs().max() < 1e-5


def test_gradient_accumulation_and_checkpointing_do_not_change_the_first_step(llava, tmp_path):
    """Six pairs in one step: all at once, or two at a time with activations recomputed."""
    rows = []
    for name, changes in {
        "whole": {"batch_size": 6},
        "parts": {
            "batch_size": 2, "gradient_accumulation_steps": 3, "gradient_checkpointing": True,
        },
    }.items():  # fmt: skip
        config = FAST.model_copy(update={"num_epochs": 2, **changes})
        rows.append(train(llava[0], llava[3], tmp_path / name, config=config).history)
    assert [len(history) for history in rows] == [2, 2]
    for figure in ("loss", "grad_norm"):
        assert rows[0][0][figure] == pytest.approx(rows[1][0][figure], rel=1e-4)
        assert rows[0][1][figure] == pytest.approx(rows[1][1][figure], rel=1e-3)


def test_plain_trl_trains_on_the_same_table_without_our_code(llava, tmp_path):
    from datasets import load_dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    checkpoint, processor, _, pairs_path = llava
    with preserved_globals():
        dataset = load_dataset(
            "parquet", data_files=str(pairs_path / "*.parquet"), split="train",
            cache_dir=str(tmp_path / "cache"),
        )  # fmt: skip
        assert dataset[0]["images"][0].size == (48, 40)
        trainer = DPOTrainer(
            model=plain_model(checkpoint),
            args=DPOConfig(
                output_dir=str(tmp_path / "trl"), per_device_train_batch_size=2, max_steps=2,
                max_length=None, bf16=False, use_cpu=True, report_to="none", save_strategy="no",
                disable_tqdm=True, logging_steps=1,
            ),
            train_dataset=dataset,
            processing_class=processor,
            peft_config=LoraConfig(r=4, target_modules="all-linear", exclude_modules=".*vision.*"),
        )  # fmt: skip
        losses = trainer.train()
    assert losses.training_loss == pytest.approx(math.log(2), abs=0.05)
