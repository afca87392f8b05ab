"""Confidence intervals and paired tests against values worked by hand."""

import math

import pytest

from csr.intervals import confidence_intervals, holm, paired_tests
from csr.outcomes import Outcome, outcomes_of


def shares(values: list[int], metric: str = "chair_s") -> list[Outcome]:
    """One yes or no an image."""
    return [
        outcome
        for n, value in enumerate(values)
        for outcome in outcomes_of(f"p{n}", f"i{n}", [(metric, value, 1)])
    ]


def ratios(pairs: list[tuple[int, int]], metric: str = "chair_i") -> list[Outcome]:
    return [
        outcome
        for n, (top, bottom) in enumerate(pairs)
        for outcome in outcomes_of(f"p{n}", f"i{n}", [(metric, top, bottom)])
    ]


def test_a_share_of_images_has_wilsons_interval() -> None:
    # 2 of 10, z = 1.96: centre (2 + z²/2) / (10 + z²) = 3.9207 / 13.8415 = .2833,
    # half z sqrt(2 * 8 / 10 + z²/4) / (10 + z²) = 1.96 * sqrt(1.6 + .9604) / 13.8415 = .2266
    interval = confidence_intervals(shares([1, 1] + [0] * 8))["chair_s"]
    assert interval.method == "wilson"
    assert interval.low == pytest.approx(0.0567, abs=1e-4)
    assert interval.high == pytest.approx(0.5098, abs=1e-4)
    assert interval.standard_error == pytest.approx(math.sqrt(0.2 * 0.8 / 10))


def test_no_hallucination_in_few_images_is_not_certainty() -> None:
    interval = confidence_intervals(shares([0] * 10))["chair_s"]
    assert interval.low == 0.0
    assert interval.high == pytest.approx(3.8415 / 13.8415, abs=1e-4)  # z² / (n + z²)


def test_a_ratio_is_resampled_by_image() -> None:
    # 100 images with 4 mentions each, all wrong or none: as uncertain as 100 cases, not 400.
    clustered = confidence_intervals(ratios([(4, 4)] * 30 + [(0, 4)] * 70))["chair_i"]
    half = 1.96 * math.sqrt(0.3 * 0.7 / 100)
    assert clustered.method == "bca"
    assert clustered.high - clustered.low == pytest.approx(2 * half, rel=0.12)
    assert clustered.low < 0.3 < clustered.high
    assert clustered.standard_error == pytest.approx(half / 1.96, rel=0.1)


def test_questions_about_one_image_go_together() -> None:
    """Six questions of an image are right or wrong at once: fifty images are fifty cases."""
    questions = [
        Outcome(prompt_id=f"{image}-{n}", image=f"i{image}", metric="pope_accuracy",
                stratum="random", numerator=float(image % 2), denominator=1.0)
        for image in range(50)
        for n in range(6)
    ]  # fmt: skip
    interval = confidence_intervals(questions)["pope_accuracy"]
    half = 1.96 * math.sqrt(0.25 / 50)
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.12)


def test_a_mean_over_strata_weighs_them_alike() -> None:
    """.5 of a small split and 1.0 of a large one: the figure is .75."""
    outcomes = [
        *outcomes_of("a", "i0", [("pope_accuracy", 1, 1)], "random"),
        *outcomes_of("b", "i1", [("pope_accuracy", 0, 1)], "random"),
        *(
            outcome
            for n in range(8)
            for outcome in outcomes_of(f"c{n}", f"i{n}", [("pope_accuracy", 1, 1)], "popular")
        ),
    ]
    (test,) = paired_tests(outcomes, outcomes)
    assert test.before == test.after == 0.75
    assert (test.difference, test.p_value) == (0.0, 1.0)
    assert (test.num_prompts, test.num_images) == (10, 8)


def test_one_image_has_no_interval() -> None:
    assert confidence_intervals(shares([1])) == {}
    assert confidence_intervals(ratios([(1, 2)])) == {}


def test_nothing_counted_has_no_interval() -> None:
    assert confidence_intervals(ratios([(0, 0), (0, 0), (0, 0)])) == {}


@pytest.mark.parametrize("bottom", [4, 5, 7])
def test_ratios_that_are_all_alike_have_none(bottom: int) -> None:
    """Whatever their rounding."""
    assert confidence_intervals(ratios([(1, bottom)] * 6)) == {}
    alike = ratios([(1, bottom)] * 6)
    more = ratios([(2, bottom)] * 6)
    assert paired_tests(alike, more)[0].ci_low is None


def test_intervals_repeat() -> None:
    outcomes = ratios([(n % 3, 4) for n in range(20)])
    assert confidence_intervals(outcomes) == confidence_intervals(outcomes)


def test_mcnemar_counts_the_images_on_which_two_differ() -> None:
    # 20 images: 6 became right, 1 became wrong, 13 alike.
    before = shares([1] * 6 + [0] + [1] * 5 + [0] * 8)
    after = shares([0] * 6 + [1] + [1] * 5 + [0] * 8)
    (test,) = paired_tests(before, after)
    assert test.method == "mcnemar"
    assert (test.before, test.after) == (11 / 20, 6 / 20)
    assert test.difference == pytest.approx(-0.25)
    # exact, two-sided: 2 * (C(7,0) + C(7,1)) / 2^7 = 16 / 128
    assert test.p_value == pytest.approx(0.125)
    assert test.ci_low is not None
    assert test.ci_high is not None
    assert test.ci_low < -0.25 < test.ci_high


def test_questions_about_one_image_are_swapped_together_and_mcnemar_stands_beside() -> None:
    """Two images, five questions each; on both images all five became right."""

    def answers(right: int) -> list[Outcome]:
        return [
            outcome
            for image in ("a", "b")
            for n in range(5)
            for outcome in outcomes_of(
                f"{image}{n}", image, [("pope_accuracy", right, 1)], "random"
            )
        ]

    (test,) = paired_tests(answers(0), answers(1))
    assert test.method == "permutation"
    assert test.p_value == pytest.approx(2 / 4)  # of the 2^2 swaps two reach |1|
    assert test.mcnemar_p_value == pytest.approx(2 / 2**10)  # ten independent questions
    (ratio,) = paired_tests(ratios([(1, 4)] * 3), ratios([(1, 4)] * 3))
    assert ratio.mcnemar_p_value is None


def test_a_ratio_is_tested_by_swapping_images() -> None:
    # Four images, each 2 of 4 before and 1 of 4 after: of the 2^4 = 16 swaps two reach |-.25|.
    (test,) = paired_tests(ratios([(2, 4)] * 4), ratios([(1, 4)] * 4))
    assert test.method == "permutation"
    assert test.difference == pytest.approx(-0.25)
    assert test.p_value == pytest.approx(2 / 16)
    assert test.ci_low is None  # all images agree: resampling shows nothing


def test_the_permutation_test_agrees_with_the_normal_one() -> None:
    before = ratios([(1 + n % 2, 4) for n in range(200)])
    after = ratios([(1 + (n * 7 % 5) // 3, 4) for n in range(200)])
    (test,) = paired_tests(before, after)
    differences = [
        (b.numerator - a.numerator) / 4 for a, b in zip(before, after, strict=True)
    ]  # equal denominators: the ratio is a mean
    mean = sum(differences) / 200
    se = math.sqrt(sum((d - mean) ** 2 for d in differences) / 200 / 200)
    assert test.difference == pytest.approx(mean)
    assert test.p_value == pytest.approx(math.erfc(abs(mean / se) / math.sqrt(2)), abs=0.03)
    assert test.ci_low == pytest.approx(mean - 1.96 * se, abs=0.01)
    assert test.ci_high == pytest.approx(mean + 1.96 * se, abs=0.01)


def test_only_shared_figures_are_tested() -> None:
    assert paired_tests(shares([1, 0]), shares([1, 0], "recall")) == []


def test_other_prompts_are_our_mistake() -> None:
    with pytest.raises(AssertionError, match="not the same prompts"):
        paired_tests(shares([1, 0]), shares([1, 0, 1]))


def test_holm() -> None:
    # sorted .01 .02 .04: times 3, 2, 1 = .03, .04, .04
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
