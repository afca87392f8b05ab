import math

import pytest

from rewards.likelihood import likelihood
from tests.trees import eos_step, make_step


def test_mean_logprob_is_the_mean_over_tokens():
    # (-0.1 - 0.7 - 0.4) / 3 = -0.4
    step = make_step("abc", [-0.1, -0.7, -0.4])
    assert likelihood(step, "mean_logprob") == pytest.approx(-0.4)


def test_product_multiplies_probabilities():
    # 0.5 x 0.25 x 0.8 = 0.1
    step = make_step("abc", [math.log(0.5), math.log(0.25), math.log(0.8)])
    assert likelihood(step, "product") == pytest.approx(0.1)


def test_product_shrinks_with_length_where_the_mean_does_not():
    short, long = make_step("ab", [-0.5] * 2), make_step("abcdefgh", [-0.5] * 8)
    assert likelihood(short, "mean_logprob") == likelihood(long, "mean_logprob") == -0.5
    assert likelihood(short, "product") == pytest.approx(math.exp(-1))
    assert likelihood(long, "product") == pytest.approx(math.exp(-4))


def test_a_bare_end_has_the_likelihood_of_its_token():
    assert likelihood(eos_step(-0.25), "mean_logprob") == -0.25
    assert likelihood(eos_step(math.log(0.3)), "product") == pytest.approx(0.3)
