import pytest

from csr.evaluation._diversity import diversity_metrics


def test_hand_counted_corpus() -> None:
    metrics = diversity_metrics([["A cat sat.", "A cat sat."], ["A dog."], []])
    assert metrics["mean_response_sentences"] == 1.0
    assert metrics["distinct_1"] == 4 / 8  # a, cat, sat, dog
    # a-cat, cat-sat, sat-a, a-cat, cat-sat | a-dog
    assert metrics["distinct_2"] == 4 / 6
    assert metrics["repetition"] == pytest.approx(1 / 3)
    assert metrics["empty_share"] == pytest.approx(1 / 3)
    # a-cat-sat-a, cat-sat-a-cat, sat-a-cat-sat: none twice
    assert metrics["repeated_4gram_share"] == 0.0


def test_repeated_fourgrams_within_a_response_only() -> None:
    looping = "the cat sat on the cat sat on the mat"  # 7 fourgrams, the-cat-sat-on twice...
    # the-cat-sat-on, cat-sat-on-the, sat-on-the-cat, on-the-cat-sat, the-cat-sat-on (again),
    # cat-sat-on-the (again), sat-on-the-mat
    assert diversity_metrics([[looping]])["repeated_4gram_share"] == 2 / 7
    assert diversity_metrics([["a b c d"], ["a b c d"]])["repeated_4gram_share"] == 0.0


def test_case_and_punctuation_do_not_hide_a_repetition() -> None:
    assert diversity_metrics([["A cat.", "a CAT!"]])["repetition"] == 1.0
    assert diversity_metrics([["A cat.", "A cat's."]])["repetition"] == 0.0
    assert diversity_metrics([["...", "!"]])["repetition"] == 0.0


def test_empty_responses_divide_by_nothing() -> None:
    metrics = diversity_metrics([[], []])
    assert metrics.pop("empty_share") == 1.0
    assert set(metrics.values()) == {0.0}
