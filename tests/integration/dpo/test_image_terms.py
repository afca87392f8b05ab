"""The image terms with real models: against passes without our code, and what they teach."""

import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from csr.errors import DataError
from csr.images import image_ref
from csr.trainers._image_terms import ImageTerms
from csr.trainers._isolation import preserved_globals
from csr.trainers._trl import cache_reference
from tests.dpo_runs import (
    FAST,
    SHARDED,
    Prepared,
    plain_distributions,
    plain_logprobs,
    plain_model,
    train,
)
from tests.preference_pairs import make_pairs, write_pairs

NOISE = "diffusion_noise:500"
RELEASED = ImageTerms(
    corruption=NOISE, distortion="released", conditional_weight=2.0, anchor_weight=0.5
)
PAPER = ImageTerms(corruption=NOISE, distortion="paper", distortion_weight=1.0)
CONDITIONAL = ImageTerms(corruption=NOISE, conditional_weight=1.0)
COPIES = {"num_processes": 2, "batch_size": 1, "gradient_checkpointing": True}


def with_terms(terms, **changes):
    return FAST.model_copy(update={"image_terms": terms, **changes})


def corrupted_prompt(pair, corruption):
    """The corruption's randomness is the image's own, so the pixels are those of training."""
    return replace(pair.prompt, image=replace(pair.prompt.image, corruption=corruption))


def by_hand(model, processor, pair, corruption):
    """What a pass without the trainer's code finds of the chosen response."""
    ids = pair.chosen.token_ids
    clean = plain_distributions(model, processor, pair.prompt, ids)
    noisy = plain_distributions(model, processor, corrupted_prompt(pair, corruption), ids)
    said, flips = torch.tensor(ids)[:, None], noisy.argmax(dim=-1)[:, None]
    return {
        "corrupted_logprob": noisy.gather(1, said).sum().item(),
        "flip_margin": (clean.gather(1, said) - clean.gather(1, flips)).sum().item(),
        "num_flipped": (flips != said).sum().item(),
    }


@pytest.mark.parametrize(("family", "corruption"), [("llava", NOISE), ("qwen2_5_vl", "resize:90")])
def test_the_cached_reference_is_a_pass_of_its_own(families, tmp_path, family, corruption):
    """Qwen sees a larger image as more tokens, so that the two batches differ in length."""
    checkpoint, processor, pairs, pairs_path = families[family]
    config = with_terms(RELEASED.model_copy(update={"corruption": corruption}))
    with preserved_globals():
        prepared = Prepared(families[family], pairs_path, tmp_path, config=config)
        batch = prepared.collator([{"row": 0}])
        cache_reference(prepared.trainer, prepared.collator, batch_size=4)
    longer = batch["corrupted"]["input_ids"].shape[1] > batch["input_ids"].shape[1]
    assert longer == (family == "qwen2_5_vl")
    model = plain_model(checkpoint)
    for pair, known in zip(pairs, prepared.collator.reference_logprobs, strict=True):
        own = by_hand(model, processor, pair, corruption)
        rejected = sum(plain_logprobs(model, processor, pair.prompt, pair.rejected.token_ids))
        assert known[1:] == pytest.approx(
            (rejected, own["corrupted_logprob"], own["flip_margin"]), abs=2e-4
        )
        assert own["num_flipped"] > 0


def losses_by_hand(policy, base, processor, pair):
    """Each loss of one pair by two models, from passes without the trainer's code.

    beta is 0.1 and the distortion's weight 0.25.
    """
    noisy, ids = corrupted_prompt(pair, NOISE), pair.chosen.token_ids
    now, then = (by_hand(model, processor, pair, NOISE) for model in (policy, base))

    def ratio(prompt, token_ids):
        of_policy, of_base = (
            sum(plain_logprobs(model, processor, prompt, token_ids)) for model in (policy, base)
        )
        return of_policy - of_base

    def loss(reward):
        return math.log1p(math.exp(-reward))

    flips = plain_distributions(policy, processor, noisy, ids).argmax(dim=-1)[:, None]
    of_flips = [
        plain_distributions(model, processor, noisy, ids).gather(1, flips).sum().item()
        for model in (policy, base)
    ]
    chosen, rejected = ratio(pair.prompt, ids), ratio(pair.prompt, pair.rejected.token_ids)
    corrupted = ratio(noisy, ids)
    return {
        "text_loss": loss(0.1 * (chosen - rejected)),
        "released": loss(0.1 * (now["flip_margin"] - then["flip_margin"])),
        "paper": loss(0.1 * (chosen - rejected - 0.25 * (of_flips[0] - of_flips[1]))),
        "conditional_loss": loss(0.1 * (chosen - corrupted)),
        "conditional_margin": 0.1 * (chosen - corrupted),
        "anchor_loss": loss(0.1 * chosen),
        "flipped_token_share": now["num_flipped"] / len(ids),
    }


@pytest.mark.parametrize("form", ["released", "paper"])
def test_every_loss_is_that_of_passes_without_our_code(llava, tmp_path, form):
    """All pairs in one step, and the figures of the policy that it makes."""
    checkpoint, processor, pairs, pairs_path = llava
    terms = RELEASED.model_copy(update={"distortion": form, "distortion_weight": 0.25})
    config = with_terms(terms, batch_size=len(pairs), num_epochs=1, learning_rate=1e-2)
    with preserved_globals():
        prepared = Prepared(llava, pairs_path, tmp_path, config=config)
        trainer = prepared.trainer
        cache_reference(trainer, prepared.collator, batch_size=2)
        trainer.train()
        batch = prepared.collator([{"row": row} for row in range(len(pairs))])
        loss = trainer.compute_loss(trainer.model, batch).item()
        row = {name: value for name, [value] in trainer._metrics["train"].items()}
        base = plain_model(checkpoint)
        each = [losses_by_hand(trainer.model.eval(), base, processor, pair) for pair in pairs]
    mean = {name: sum(losses[name] for losses in each) / len(each) for name in each[0]}
    mean["image_loss"] = mean[form]
    [start] = prepared.watch.history
    for name in mean.keys() - {"released", "paper"}:
        assert row[name] == pytest.approx(mean[name], abs=1e-4), name
    own = {"released": 0.75 * mean["text_loss"] + 0.25 * mean["released"], "paper": mean["paper"]}
    added = 2.0 * mean["conditional_loss"] + 0.5 * mean["anchor_loss"]
    assert loss == pytest.approx(own[form] + added, abs=3e-4)
    for name in ("text_loss", "image_loss", "conditional_loss", "anchor_loss"):
        assert start[name] == pytest.approx(math.log(2), abs=1e-5), name
        assert row[name] < start[name] - 0.01, name


@pytest.mark.parametrize(
    ("terms", "of_the_reference", "of_an_epoch"),
    [(RELEASED, 2, 2), (PAPER, 1, 3), (ImageTerms(anchor_weight=1.0), 1, 1)],
    ids=["released", "paper", "anchor"],
)
def test_what_the_terms_cost(llava, tmp_path, terms, of_the_reference, of_an_epoch):
    """Images that the vision tower encodes for a pair: the clean one once for both responses."""
    with preserved_globals():
        config = with_terms(terms, num_epochs=1, batch_size=6)
        prepared = Prepared(llava, llava[3], tmp_path, config=config)
        encoded = []
        prepared.trainer.model.base_model.model.model.vision_tower.register_forward_pre_hook(
            lambda module, args: encoded.append(len(args[0]))
        )
        cache_reference(prepared.trainer, prepared.collator, batch_size=6)
        before = sum(encoded)
        prepared.trainer.train()
    num_pairs = len(llava[2])
    assert before == of_the_reference * num_pairs
    assert sum(encoded) - before == of_an_epoch * num_pairs


def test_the_conditional_term_ties_the_answer_to_its_image(llava, trained, tmp_path):
    """More than training on the same pairs without the term does."""
    checkpoint, processor, pairs, pairs_path = llava
    result = train(checkpoint, pairs_path, tmp_path / "out", config=with_terms(CONDITIONAL))

    def likelier_on_its_image(path):
        model = plain_model(path)
        return sum(
            sum(plain_logprobs(model, processor, pair.prompt, pair.chosen.token_ids))
            - sum(plain_logprobs(model, processor, corrupted_prompt(pair, NOISE), ids))
            for pair in pairs
            for ids in [pair.chosen.token_ids]
        ) / len(pairs)

    base, without, having = map(
        likelier_on_its_image, (checkpoint, trained["llava"].model_path, result.model_path)
    )
    assert having > base + 0.5
    assert having > without + 0.5


def test_training_with_terms_goes_on_from_a_checkpoint_as_if_undisturbed(llava, tmp_path):
    config = with_terms(RELEASED, lora_dropout=0.1, checkpoint_every_num_steps=1)
    expected = train(llava[0], llava[3], tmp_path / "undisturbed", config=config)

    def stop(done, total):
        if done == 12:  # the reference's 6 pairs and 3 steps of 2; the third is not yet kept
            raise KeyboardInterrupt

    folder = {"keep_in": tmp_path / "kept", "config": config}
    with pytest.raises(KeyboardInterrupt):
        train(llava[0], llava[3], tmp_path / "out", progress=stop, **folder)
    calls = []
    result = train(
        llava[0], llava[3], tmp_path / "out",
        progress=lambda done, total: calls.append(done), **folder,
    )  # fmt: skip
    assert calls[0] == 10, "training goes on after its second step"
    assert result.history == expected.history
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        ours, theirs = (root.parent / name for root in (result.model_path, expected.model_path))
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_a_pair_whose_image_stays_as_it_is_stops_training_before_a_step(llava, tmp_path):
    checkpoint, processor, _, _ = llava
    pairs = make_pairs(tmp_path / "images", processor)
    Image.new("RGB", (48, 40), (10, 20, 30)).save(tmp_path / "images" / "p004.png")
    grey = replace(pairs[4].prompt, image=image_ref(tmp_path / "images" / "p004.png"))
    pairs[4] = replace(pairs[4], prompt=grey)
    path = write_pairs(tmp_path / "pairs", pairs)
    config = with_terms(CONDITIONAL.model_copy(update={"corruption": "crop:0.2"}))
    with pytest.raises(DataError, match=r"crop:0\.2 leaves the image of pair p004#0"):
        train(checkpoint, path, tmp_path / "out", config=config)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("terms", "two"),
    [(RELEASED, COPIES), (PAPER, COPIES), (RELEASED, SHARDED)],
    ids=["released", "paper", "in shards"],
)
def test_two_processes_train_with_terms_as_one_does(llava, tmp_path, request, terms, two):
    """In one step; later ones may tip a token that is nearly as likely as another."""
    if two is SHARDED:
        request.getfixturevalue("cpu_shards")
    histories = []
    for name, changes in {"two": two, "one": {"batch_size": 2}}.items():
        config = with_terms(terms, num_steps=1, **changes)
        histories.append(train(llava[0], llava[3], tmp_path / name, config=config).history)
    for figure in ("loss", "grad_norm", "image_loss", "flipped_token_share"):
        of_two, of_one = ([row[figure] for row in history] for history in histories)
        assert of_two == pytest.approx(of_one, rel=1e-3, abs=1e-4), figure
