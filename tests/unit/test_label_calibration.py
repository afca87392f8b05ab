"""Content-free calibration by hand, and what of a policy it reads."""

import math
from collections.abc import Mapping, Sequence

import pytest

from csr.errors import DataError
from csr.label_calibration import (
    calibrated,
    content_free_prompts,
    label_logprobs,
    log_sum_exp,
    probabilities,
    summed,
)
from csr.types import LabelQuery, Prompt
from tests.trees import SpeakingSampler, babble, make_prompt


class WordSampler(SpeakingSampler):
    """Token ids are characters; the log-probability of each comes from a table."""

    def __init__(self, seeing: Mapping[str, float], blind: Mapping[str, float]) -> None:
        super().__init__(babble)
        self.tables = {True: seeing, False: blind}
        self.asked: list[tuple[bool, list[str]]] = []

    def encode_beginning(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text)) if set(text) <= set(self.tables[True]) else ()

    def score(
        self,
        prompts: Sequence[Prompt],
        token_ids: Sequence[Sequence[int]],
        *,
        with_image: bool = True,
    ) -> list[tuple[float, ...]]:
        texts = ["".join(map(chr, ids)) for ids in token_ids]
        self.asked.append((with_image, texts))
        return [tuple(self.tables[with_image][c] for c in text) for text in texts]


def test_the_calibration_by_hand():
    # 0.6 / 0.75 = 0.8 and 0.4 / 0.25 = 1.6: "yes" was habit
    assert calibrated((0.6, 0.4), (0.75, 0.25), smoothing=0) == pytest.approx((1 / 3, 2 / 3))
    # with the paper's 1e-4 in the divisor
    q = calibrated((0.6, 0.4), (0.75, 0.25))
    assert q[0] / q[1] == pytest.approx((0.6 / 0.7501) / (0.4 / 0.2501))
    assert math.fsum(q) == pytest.approx(1)


def test_a_constant_bias_is_removed():
    """Logits raised by the same habit, seeing or not, give what they give without it."""
    honest, habit = (0.3, -0.2, 0.1), (2.0, -1.0, 0.5)
    biased = probabilities([a + b for a, b in zip(honest, habit, strict=True)])
    assert biased.index(max(biased)) == 0
    free = probabilities(habit)
    assert calibrated(biased, free, smoothing=0) == pytest.approx(probabilities(honest))
    assert calibrated(biased, free) == pytest.approx(probabilities(honest), abs=1e-3)


def test_a_uniform_habit_changes_nothing():
    assert calibrated((0.7, 0.2, 0.1), (1 / 3,) * 3) == pytest.approx((0.7, 0.2, 0.1))


def test_a_label_never_said_without_an_image_does_not_explode():
    q = calibrated((0.999, 0.001), (1.0, 0.0))
    # 0.001 / 1e-4 = 10 against 0.999 / 1.0001: large, and finite
    assert q == pytest.approx((0.0908, 0.9092), abs=1e-4)
    assert calibrated((1.0, 0.0), (1.0, 0.0)) == (1.0, 0.0)


def test_probabilities_are_over_the_labels_alone_and_do_not_overflow():
    assert probabilities([math.log(0.02), math.log(0.06)]) == pytest.approx((0.25, 0.75))
    assert probabilities([-2000.0, -2000.0 - math.log(3)]) == pytest.approx((0.75, 0.25))
    assert log_sum_exp([-math.inf, -math.inf]) == -math.inf


def test_both_content_free_inputs_are_summed():
    assert summed([(0.9, 0.1), (0.5, 0.5)]) == pytest.approx((0.7, 0.3))


def test_content_free_inputs():
    prompt = make_prompt()
    (none,) = content_free_prompts(prompt, "none")
    (blank,) = content_free_prompts(prompt, "blank")
    assert none == (prompt, False)
    assert (blank[0].image.corruption, blank[0].image.sha256) == ("blank", prompt.image.sha256)
    assert blank[1] is True
    assert content_free_prompts(prompt, "both") == [none, blank]


def test_forms_are_summed_tokens_multiplied_and_each_response_counts_once():
    table = {"Y": -1.0, "y": -2.0, "e": -0.5, "N": -3.0}
    sampler = WordSampler(table, dict.fromkeys(table, -0.25))
    forms = (("Y", "y", "Ye", "Y", "Q"), ("N",))  # "Ye" begins with "Y", "Q" cannot be said
    queries = [
        LabelQuery(prompt=make_prompt("a"), forms=forms),
        LabelQuery(prompt=make_prompt("a"), forms=forms, with_image=False),
        LabelQuery(prompt=make_prompt("b"), forms=(("ye",), ("N",))),
    ]
    first, blind, other = label_logprobs(queries, sampler)
    assert first == pytest.approx((math.log(math.exp(-1) + math.exp(-2)), -3.0))
    assert blind == pytest.approx((math.log(2) - 0.25, -0.25))
    assert other == pytest.approx((-2.5, -3.0))
    assert sampler.asked == [(True, ["Y", "y", "N", "ye", "N"]), (False, ["Y", "y", "N"])]


def test_a_label_that_cannot_be_said_is_an_error():
    sampler = WordSampler({"Y": -1.0}, {})
    with pytest.raises(DataError, match=r"'a': no response of this policy could begin with 'Q'"):
        label_logprobs([LabelQuery(prompt=make_prompt("a"), forms=(("Y",), ("Q",)))], sampler)
