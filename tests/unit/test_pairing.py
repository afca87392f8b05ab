import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csr.errors import NumericalError
from csr.pairing import PairingSettings, pair_trees, quantile
from csr.responses import response_reward
from csr.types import FinishReason, PairingResult, ResponseTree
from tests.trees import make_tree

OPEN = PairingSettings(
    response_reward="sum",
    pairing="extremes",
    require_eos=True,
    clean_text=False,
    min_margin=0.0,
    min_margin_quantile=0.0,
    max_length_difference=1.0,
    max_repetition=1.0,
    max_steps=8,
)
"""Filters that let everything pass."""

TWO = {"0": 1.0, "0/": 0.0, "1": 2.5, "1/": 0.0}
"""Two one-sentence responses."""


def skipped(result: PairingResult) -> dict[str, int]:
    assert result.pairs == ()
    return result.skipped


# ---------------------------------------------------------------- rewards of responses


def test_response_rewards_by_hand():
    """Two sentences (1.5, -0.5) and an end worth 0.3; depth is 2."""
    path = make_tree({"0": 1.5, "0.0": -0.5, "0.0/": 0.3}).path("42/0.0.9")
    assert response_reward(path, "sum") == pytest.approx(1.3)
    assert response_reward(path, "mean") == pytest.approx(0.5)
    assert response_reward(path, "sum_over_depth_plus_one") == pytest.approx(1.0 / 3)


def test_an_empty_response_has_no_mean_to_divide_by():
    path = make_tree({"/": 0.0}).path("42/9")
    assert [response_reward(path, how) for how in ("sum", "mean", "sum_over_depth_plus_one")] == [
        0.0, 0.0, 0.0,
    ]  # fmt: skip


def test_responses_are_the_complete_paths():
    """The path that the search left at "1" is none."""
    tree = make_tree({"0": 1.0, "1": 9.0, "0.0": 0.5, "0/": 0.0, "0.0/": 0.0})
    responses = {r.response_id: r for r in pair_trees([tree], OPEN).responses}
    assert set(responses) == {"42/0.9", "42/0.0.9"}
    long = responses["42/0.0.9"]
    assert long.text == "0. 0.0."
    assert (long.num_steps, long.num_tokens, long.reward) == (2, 3 + 5 + 1, 1.5)
    assert long.token_ids == (*(10 + ord(c) for c in " 0. 0.0."), 0)
    assert long.sum_logprob == pytest.approx(-0.5 * 9)
    assert long.breakdown == {"likelihood": -0.5}
    assert long.finish_reason is FinishReason.EOS


def test_breakdown_is_the_mean_over_sentences():
    tree = make_tree({"0": 1.0, "0.0": 1.0, "0.0/": 0.0})
    values = iter([10.0, 30.0, 99.0])
    nodes = tuple(
        replace(n, score=replace(n.score, breakdown={"image_similarity": next(values)}))
        for n in tree.nodes
    )
    (response,) = pair_trees([replace(tree, nodes=nodes)], OPEN).responses
    assert response.breakdown == {"image_similarity": 20.0}


# ---------------------------------------------------------------- extremes


def test_the_best_and_the_worst_make_the_pair():
    tree = make_tree({**TWO, "0.0": 3.0, "0.0/": 0.0, "1.0": -4.0, "1.0/": 0.0})
    # 0: 1, 0.0: 4, 1: 2.5, 1.0: -1.5
    (pair,) = pair_trees([tree], OPEN).pairs
    assert (pair.chosen.response_id, pair.rejected.response_id) == ("42/0.0.9", "42/1.0.9")
    assert (pair.pair_id, pair.margin, pair.source) == ("42#0", 5.5, "csr")


def test_ties_go_by_place():
    tree = make_tree({"0": 1.0, "1": 1.0, "2": 2.0, "3": 2.0, "0/": 0, "1/": 0, "2/": 0, "3/": 0})
    (pair,) = pair_trees([tree], OPEN).pairs
    assert (pair.chosen.response_id, pair.rejected.response_id) == ("42/2.9", "42/1.9")


def test_the_mean_and_the_released_rule_choose_otherwise_than_the_sum():
    """Sentences 2 2 2, 3 and 1. Sum 6, 3, 1; mean 2, 3, 1; over depth + 1: 1.5, 1.5, 0.5."""
    rewards = {"0": 2.0, "0.0": 2.0, "0.0.0": 2.0, "0.0.0/": 0, "1": 3.0, "1/": 0, "2": 1, "2/": 0}
    tree = make_tree(rewards)

    def chosen(how: str) -> tuple[str, float]:
        (pair,) = pair_trees([tree], replace(OPEN, response_reward=how)).pairs
        return pair.chosen.response_id, pair.margin

    assert chosen("sum") == ("42/0.0.0.9", 5.0)
    assert chosen("mean") == ("42/1.9", 2.0)
    assert chosen("sum_over_depth_plus_one") == ("42/0.0.0.9", 1.0)


def test_released_costs_by_hand():
    """Ranks as negated rewards. One sentence -0.2: cost .2 / 2 = .1; two at -0.2: .4 / 3 = .133.

    So of two responses whose sentences rank alike the released rule takes the shorter.
    """
    tree = make_tree({"0": -0.2, "0/": 0.0, "1": -0.2, "1.0": -0.2, "1.0/": 0.0})
    (pair,) = pair_trees([tree], replace(OPEN, response_reward="sum_over_depth_plus_one")).pairs
    assert (pair.chosen.num_steps, pair.rejected.num_steps) == (1, 2)
    assert pair.chosen.reward == pytest.approx(-0.1)
    assert pair.rejected.reward == pytest.approx(-0.4 / 3)


# ---------------------------------------------------------------- filters


def test_fewer_than_two_responses():
    assert skipped(pair_trees([make_tree({"0": 1.0, "0/": 0.0})], OPEN)) == {"too_few_responses": 1}
    assert skipped(pair_trees([make_tree({})], OPEN)) == {"too_few_responses": 1}


def test_an_empty_response_is_never_compared():
    tree = make_tree({"/": 0.0, "0": -1.0, "0/": 0.0})
    assert skipped(pair_trees([tree], OPEN)) == {"too_few_responses": 1}


def test_unfinished_responses():
    """Two paths that stop at max_steps beside one that ended."""
    tree = make_tree({"0": 1.0, "0/": 0.0, "0.0": 2.0, "0.1": 3.0})
    limited = replace(OPEN, max_steps=2)
    assert skipped(pair_trees([tree], limited)) == {"unfinished": 1}
    (pair,) = pair_trees([tree], replace(limited, require_eos=False)).pairs
    assert (pair.chosen.response_id, pair.rejected.response_id) == ("42/0.1", "42/0.9")
    assert pair.chosen.finish_reason is FinishReason.STEP


def test_equal_text():
    tree = make_tree(TWO, {"1": " 0."})
    assert skipped(pair_trees([tree], OPEN)) == {"equal_text": 1}


def test_margins():
    """The margin of TWO is 1.5; one of 0 never makes a pair."""
    tree = make_tree(TWO)
    assert len(pair_trees([tree], replace(OPEN, min_margin=1.5)).pairs) == 1
    assert skipped(pair_trees([tree], replace(OPEN, min_margin=1.51))) == {"small_margin": 1}
    assert skipped(pair_trees([make_tree({**TWO, "1": 1.0})], OPEN)) == {"small_margin": 1}


def test_margin_quantile_is_over_the_pairs_of_the_call():
    """Margins 1, 2, 3, 4, 5; their 0.3 quantile is 1 + 0.3 x 4 = 2.2; the tie has none."""
    trees = [
        make_tree({"0": 0.0, "0/": 0.0, "1": float(margin), "1/": 0.0}, prompt_id=f"m{margin}")
        for margin in range(6)
    ]
    result = pair_trees(trees, replace(OPEN, min_margin_quantile=0.3))
    assert [pair.margin for pair in result.pairs] == [3.0, 4.0, 5.0]
    assert result.skipped == {"small_margin": 3}


def test_length_difference():
    """4 against 6 tokens, ends included: a difference of a third."""
    tree = make_tree(TWO, {"0": "ab.", "1": "abcd."})
    assert len(pair_trees([tree], replace(OPEN, max_length_difference=0.34)).pairs) == 1
    refused = pair_trees([tree], replace(OPEN, max_length_difference=0.33))
    assert skipped(refused) == {"length_mismatch": 1}


def test_repetition_on_either_side():
    loop = " a b c d a b c d a b c d."
    for place in "01":
        tree = make_tree(TWO, {place: loop})
        # 9 runs, 4 distinct: 5 / 9.
        assert len(pair_trees([tree], replace(OPEN, max_repetition=0.56)).pairs) == 1
        refused = pair_trees([tree], replace(OPEN, max_repetition=0.55))
        assert skipped(refused) == {"repetition": 1}


def test_unclean_text_takes_the_whole_path_out():
    texts = {"0": " plain text.", "1": " plain too.", "1.0": " кот."}
    tree = make_tree({**TWO, "1.0": 9.0, "1.0/": 0.0}, texts)
    clean = replace(OPEN, clean_text=True)
    (pair,) = pair_trees([tree], clean).pairs
    assert pair.chosen.response_id == "42/1.9"
    del texts["1.0"]
    tree = make_tree(TWO, {**texts, "1": " кот."})
    assert skipped(pair_trees([tree], clean)) == {"filtered_text": 1}


def test_a_stored_reward_that_is_not_finite_stops():
    with pytest.raises(NumericalError, match="'42/1'"):
        pair_trees([make_tree({**TWO, "1": math.nan})], OPEN)


def test_every_prompt_has_a_pair_or_a_reason():
    trees = [
        make_tree(TWO, prompt_id="a"),
        make_tree({**TWO, "1": 1.0}, prompt_id="b"),
        make_tree({"0": 1.0}, prompt_id="c"),
    ]
    result = pair_trees(trees, OPEN)
    assert [pair.prompt.prompt_id for pair in result.pairs] == ["a"]
    assert result.skipped == {"small_margin": 1, "too_few_responses": 1}


# ---------------------------------------------------------------- siblings

SIBLINGS = replace(OPEN, pairing="siblings")
GROWN = {
    "0": 1.0, "1": -1.0, "2": 0.2,  # behind nothing
    "0.0": 0.5, "0.1": 2.0, "0.2": 0.4,  # behind the best first sentence
    "1.0": 9.0,  # behind another, which is not on the best path: never ended
    "0.1/": 0.0, "0.0/": 0.0,
}  # fmt: skip


def test_siblings_are_compared_along_the_best_response():
    first, second = pair_trees([make_tree(GROWN)], SIBLINGS).pairs
    assert (first.pair_id, first.chosen.text, first.rejected.text) == ("42#1", "0.", "1.")
    assert first.margin == pytest.approx(2.0)
    assert (second.pair_id, second.chosen.text) == ("42#2", "0. 0.1.")
    assert second.rejected.text == "0. 0.2."
    assert second.margin == pytest.approx(1.6)


def test_the_prefix_of_siblings_is_the_same_tokens_on_both_sides():
    _, pair = pair_trees([make_tree(GROWN)], SIBLINGS).pairs
    prefix = tuple(10 + ord(letter) for letter in " 0.")
    assert pair.chosen.token_ids[:3] == pair.rejected.token_ids[:3] == prefix
    assert pair.chosen.token_ids[-1] != 0  # the response went on


def test_a_bare_end_is_no_sibling():
    """Stopping is not a sentence: against it any sentence would teach length."""
    result = pair_trees([make_tree({"0": 1.0, "/": -1.0, "0/": 0.0})], SIBLINGS)
    assert skipped(result) == {"too_few_responses": 1}


def test_extremes_come_with_their_siblings():
    both = replace(OPEN, pairing="extremes_and_siblings")
    pairs = pair_trees([make_tree(GROWN)], both).pairs
    assert [pair.pair_id for pair in pairs] == ["42#0", "42#1", "42#2"]
    assert pairs[0] == pair_trees([make_tree(GROWN)], OPEN).pairs[0]


def test_sibling_pairs_pass_the_filters_and_a_prompt_that_loses_all_is_counted_once():
    trees = [
        make_tree(GROWN, prompt_id="1"),
        make_tree({"0": 0.1, "1": 0.0, "0/": 0.0}, prompt_id="2"),
        make_tree({"0": 0.3, "1": 0.3, "0/": 0.0}, prompt_id="3"),
    ]
    strict = replace(SIBLINGS, min_margin=1.8)
    result = pair_trees(trees, strict)
    assert [pair.pair_id for pair in result.pairs] == ["1#1"]
    assert result.skipped == {"small_margin": 2}
    by_share = pair_trees(trees, replace(SIBLINGS, min_margin_quantile=0.5))
    assert [pair.pair_id for pair in by_share.pairs] == ["1#1", "1#2"]
    assert by_share.skipped == {"small_margin": 2}


def test_without_a_complete_response_there_is_no_best_path():
    result = pair_trees([make_tree({"0": 1.0, "1": 0.0})], SIBLINGS)
    assert skipped(result) == {"too_few_responses": 1}


# ---------------------------------------------------------------- the random control


def forest(num_trees: int) -> list[ResponseTree]:
    """Trees of six one-sentence responses with random rewards; the last has but one."""
    rng = random.Random(0)
    trees = []
    for index in range(num_trees):
        num_responses = 6 if index < num_trees - 1 else 1
        rewards = {str(place): rng.random() for place in range(num_responses)}
        trees.append(
            make_tree({**rewards, **{f"{p}/": 0.0 for p in rewards}}, prompt_id=f"p{index}")
        )
    return trees


def test_random_pairs_have_the_prompts_of_extremes_and_choose_blindly():
    trees = forest(200)
    quantile30 = replace(OPEN, min_margin_quantile=0.3)
    best = pair_trees(trees, quantile30)
    blind = pair_trees(trees, replace(quantile30, pairing="random"))
    assert [p.prompt for p in blind.pairs] == [p.prompt for p in best.pairs]
    assert blind.skipped == best.skipped
    assert all(pair.chosen.text != pair.rejected.text for pair in blind.pairs)
    chosen_better = sum(pair.margin > 0 for pair in blind.pairs) / len(blind.pairs)
    # Binomial, n = 139: 0.5 +- 4 x 0.042.
    assert 0.33 < chosen_better < 0.67
    assert len({pair.chosen.response_id.split("/")[1] for pair in blind.pairs}) == 6


def test_random_pairs_do_not_depend_on_order():
    trees = forest(8)
    settings = replace(OPEN, pairing="random")
    backwards = pair_trees(trees[::-1], settings).pairs
    assert pair_trees(trees, settings).pairs == backwards[::-1]


# ---------------------------------------------------------------- quantile


def test_quantile_by_hand():
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert quantile([7.0], 0.9) == 7.0
    assert quantile([1.0, 2.0], 0.0) == 1.0
    assert quantile([], 0.3) == -math.inf


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 0.99))
def test_quantile_lies_in_the_range(values: list[float], q: float):
    assert min(values) <= quantile(values, q) <= max(values)
