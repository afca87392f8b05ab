import math

import pytest

from csr.evaluation._uncertainty import binomial_se, bootstrap_ratio_se


def test_binomial_standard_error() -> None:
    assert binomial_se(0.2, 16) == pytest.approx(0.1)  # sqrt(.2 * .8 / 16)
    assert binomial_se(0.0, 0) == 0.0


def test_bootstrap_agrees_with_the_binomial_where_denominators_are_one() -> None:
    cases = [1.0] * 60 + [0.0] * 140
    measured = bootstrap_ratio_se(cases, [1.0] * 200)
    assert measured == pytest.approx(math.sqrt(0.3 * 0.7 / 200), rel=0.1)


def test_bootstrap_sees_that_mentions_of_one_response_go_together() -> None:
    # 100 responses of 4 mentions each, all wrong or all right: as uncertain as 100 cases.
    clustered = bootstrap_ratio_se([4.0] * 30 + [0.0] * 70, [4.0] * 100)
    assert clustered == pytest.approx(math.sqrt(0.3 * 0.7 / 100), rel=0.1)


def test_bootstrap_repeats_and_follows_its_seed() -> None:
    values, ones = [1.0, 0.0, 1.0, 0.0, 0.0], [1.0] * 5
    assert bootstrap_ratio_se(values, ones, seed=3) == bootstrap_ratio_se(values, ones, seed=3)
    assert bootstrap_ratio_se(values, ones, seed=3) != bootstrap_ratio_se(values, ones, seed=4)


def test_nothing_to_count_has_no_error() -> None:
    assert bootstrap_ratio_se([0.0, 0.0], [0.0, 0.0]) == 0.0


def test_resamples_without_a_denominator_are_left_out() -> None:
    assert bootstrap_ratio_se([1.0, 0.0], [1.0, 0.0]) == 0.0  # 1/1 wherever defined
