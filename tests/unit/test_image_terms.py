"""The image terms, each by numbers worked by hand, and the settings that are refused."""

import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from csr.corruptions import check_corruption
from csr.errors import ConfigError, DataError, ModelError
from csr.trainers._image_passes import Responses, check_head
from csr.trainers._image_terms import (
    ImageTerms,
    anchor_loss,
    conditional_loss,
    paper_distortion_loss,
    released_distortion_loss,
)
from csr.trainers._pairs import TrainingPair, corrupted_pair_image
from csr.trainers.dpo import Config
from flows.config import load_recipe
from tests.sample_data import saved_image

RECIPES = Path(__file__).parents[2] / "recipes"
OF_TWO_TENTHS = 0.598139
"""-log sigma(0.2) = log(1 + e^-0.2) = log 1.818731."""
HEAD = torch.nn.Linear(2, 3, bias=False)
HEAD.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def values(*numbers):
    return torch.tensor(numbers)


def responses(states, token_ids, lengths, logprobs=None):
    states = torch.tensor(states, requires_grad=True)
    return Responses(
        token_ids=torch.tensor(token_ids),
        logprobs=logprobs,
        states=states,
        lengths=lengths,
    )


def test_the_released_distortion_is_dpo_on_two_margins():
    """0.1 (3 - 1) = 0.2; and 0.1 (-4 - 1) = -0.5, of which -log sigma is log(1 + e^0.5)."""
    losses = released_distortion_loss(values(3.0, -4.0), values(1.0, 1.0), 0.1)
    assert losses.tolist() == pytest.approx([OF_TWO_TENTHS, 0.974077], abs=1e-6)


def test_the_papers_distortion_holds_all_three_log_ratios():
    """0.1 (2 - (-1) - 2 x 0.5) = 0.2; a likelier noisy answer makes the loss larger."""
    [loss] = paper_distortion_loss(values(2.0), values(-1.0), values(0.5), beta=0.1, weight=2.0)
    assert loss.item() == pytest.approx(OF_TWO_TENTHS, abs=1e-6)
    [larger] = paper_distortion_loss(values(2.0), values(-1.0), values(1.5), beta=0.1, weight=2.0)
    assert larger.item() == pytest.approx(math.log(2), abs=1e-6)


def test_the_conditional_term_compares_the_two_images():
    """0.1 (1.5 - (-0.5)) = 0.2."""
    [loss] = conditional_loss(values(1.5), values(-0.5), 0.1)
    assert loss.item() == pytest.approx(OF_TWO_TENTHS, abs=1e-6)


def test_the_anchor_wants_a_reward_above_delta():
    """0.1 x 5 - 0.3 = 0.2; and 0.1 x (-5) - 0 = -0.5."""
    assert anchor_loss(values(5.0), 0.1, 0.3).tolist() == pytest.approx([OF_TWO_TENTHS], abs=1e-6)
    assert anchor_loss(values(-5.0), 0.1, 0.0).tolist() == pytest.approx([0.974077], abs=1e-6)


def test_the_likeliest_token_and_a_tokens_log_probability_are_the_heads():
    """Logits (2, 1, 3) and (-1, 3, 2). Of the first's third: -log(1 + e^-1 + e^-2)."""
    seen = responses([[2.0, 1.0], [-1.0, 3.0]], [0, 1], [1, 1])
    flips = seen.likeliest(HEAD)
    assert flips.tolist() == [2, 1]
    assert not flips.requires_grad
    assert seen.replaced_sums(flips, HEAD)[0].item() == pytest.approx(-0.407606, abs=1e-6)


def test_a_margin_is_the_difference_of_log_probabilities():
    """Of two responses: logits (2, 1, 3) and (-1, 3, 2) are one, (0, 5, 5) is the other.

    Said 0 and 1, others 2 and 0: 2 - 3 and 3 - (-1), so 3; said 1, other 1: nothing.
    """
    said = responses([[2.0, 1.0], [-1.0, 3.0], [0.0, 5.0]], [0, 1, 1], [2, 1])
    others = torch.tensor([2, 0, 1])
    margins = said.margins_over(others, HEAD)
    assert margins.tolist() == pytest.approx([3.0, 0.0])
    differences = said.logprobs_of(said.token_ids, HEAD) - said.logprobs_of(others, HEAD)
    assert differences.tolist() == pytest.approx([-1.0, 4.0, 0.0], abs=1e-6)


def test_the_heads_bias_counts_in_a_margin():
    head = torch.nn.Linear(2, 3)
    head.weight.data, head.bias.data = HEAD.weight.data, torch.tensor([0.5, 0.0, -0.25])
    said = responses([[2.0, 1.0]], [0], [1])
    assert said.margins_over(torch.tensor([2]), head).tolist() == pytest.approx([-0.25])


def test_noise_that_flips_nothing_leaves_log_two_and_no_gradient():
    said = responses([[2.0, 1.0], [-1.0, 3.0]], [2, 1], [2])
    [loss] = released_distortion_loss(
        said.margins_over(said.likeliest(HEAD), HEAD), values(0.0), 0.1
    )
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), abs=1e-7)
    assert said.states.grad.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_a_flipped_token_is_pushed_down_and_the_said_one_up():
    """The gradient is -sigma(-0.1 m) 0.1 (row said - row flipped), here m = 2 - 3 = -1."""
    said = responses([[2.0, 1.0]], [0], [1])
    [loss] = released_distortion_loss(
        said.margins_over(said.likeliest(HEAD), HEAD), values(0.0), 0.1
    )
    loss.backward()
    factor = -0.1 / (1 + math.exp(-0.1))
    assert said.states.grad.tolist() == [pytest.approx([0.0, factor * -1.0])]


def test_a_model_that_caps_its_logits_is_refused():
    seen = responses([[2.0, 1.0]], [2], [1], values(-0.407606))
    check_head(seen, HEAD)
    capped = responses([[2.0, 1.0]], [2], [1], values(-0.9))
    with pytest.raises(ModelError, match=r"soft cap or a factor.* differ by 0\.49"):
        check_head(capped, HEAD)


@pytest.mark.parametrize("name", ["colour_jitter:0:0", "diffusion_noise:0"])
def test_a_corruption_that_changes_nothing_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name}' leaves an image as it is"):
        check_corruption(name)


@pytest.mark.parametrize("name", ["blank", "diffusion_noise:500", "colour_jitter:0:0.3"])
def test_a_corruption_that_changes_something_is_taken(name):
    check_corruption(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no term is on"),
        ({"distortion_weight": 0.3}, "no term is on"),
        ({"distortion": "released"}, "need a corruption"),
        ({"conditional_weight": 1.0}, "need a corruption"),
        ({"anchor_weight": 1.0, "corruption": "blank"}, "corruption is set, but the term"),
        (
            {"conditional_weight": 1.0, "corruption": "blank", "distortion_weight": 0.3},
            "distortion_weight is set, but the term",
        ),
        (
            {"conditional_weight": 1.0, "corruption": "blank", "anchor_delta": 0.1},
            "anchor_delta is set, but the term",
        ),
        (
            {"distortion": "released", "corruption": "blank", "distortion_weight": 1.5},
            "share of the loss: give at most 1",
        ),
        ({"distortion": "released", "corruption": "fog"}, "There is no corruption 'fog'"),
        ({"distortion": "both", "corruption": "blank"}, "distortion"),
    ],
)
def test_terms_that_do_nothing_or_cannot_work_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        ImageTerms(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ld_alpha": 0.5}, "ld_alpha cannot go with image_terms"),
        ({"loss_type": ("sigmoid", "sft")}, "a loss of its own in place of loss_type"),
        ({"loss_weights": (2.0,)}, "a loss of its own in place of loss_type"),
        (
            {"accelerate_config": "fsdp.yaml", "checkpoint_every_num_steps": 0},
            "'paper' cannot go with accelerate_config",
        ),
    ],
)
def test_terms_that_the_loss_cannot_take_are_refused(settings, message):
    terms = {"distortion": "paper", "corruption": "blank"}
    with pytest.raises(ValidationError, match=message):
        Config(image_terms=terms, **settings)


@pytest.mark.parametrize("recipe", ["mdpo_tiny", "povid_image_tiny"])
def test_a_recipe_with_an_unknown_corruption_is_refused_when_it_is_read(recipe):
    with pytest.raises(ConfigError, match=r"trainer\.image_terms\.corruption: There is no .*'fog'"):
        load_recipe(RECIPES / f"{recipe}.yaml", ("trainer.image_terms.corruption=fog",))


def test_a_pair_whose_image_stays_as_it_is_is_named(tmp_path):
    pair = TrainingPair(
        pair_id="p7",
        prompt_text="Describe the image.",
        image=saved_image(tmp_path / "red.png"),
        image_bytes=None,
        chosen_token_ids=(5, 2),
        rejected_token_ids=(6, 2),
    )
    assert corrupted_pair_image(pair, "blank").getpixel((0, 0)) == (128, 128, 128)
    with pytest.raises(DataError, match=r"crop:0\.2 leaves the image of pair p7 .*red\.png"):
        corrupted_pair_image(pair, "crop:0.2")
