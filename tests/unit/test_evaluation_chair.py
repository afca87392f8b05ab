import math

import pytest

from csr.evaluation._chair import CaptionObjects, chair_metrics, count_objects
from csr.vocabulary import SynonymTable

OBJECTS = SynonymTable(
    {
        "dog": ["dog", "dogs", "puppy"],
        "hot dog": ["hot dog", "hot dogs"],
        "car": ["car", "cars"],
        "tie": ["tie", "bow tie"],
    }
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Two DOGS and a puppy.", ["dog", "dog"]),
        ("A hot  dog, then a dog.", ["hot dog", "dog"]),
        ("A bow\ntie and a tie.", ["tie", "tie"]),
        ("A cartoon, a carpet, a scar, dogsled.", []),
        ("A car-shaped cake.", ["car"]),
        ("Puppies.", []),  # a plural that the table does not list
        ("", []),
    ],
)
def test_mentions_are_whole_words_longest_first(text: str, names: list[str]) -> None:
    assert OBJECTS.find(text) == names


def test_a_table_without_wordings_finds_nothing() -> None:
    assert SynonymTable({"dog": []}).find("A dog.") == []


def test_counts_of_one_caption() -> None:
    counts = count_objects("A dog, a puppy, a car and a car.", {"dog", "tie"}, OBJECTS)
    # dog, dog, car, car named; car is absent; dog and tie present, dog named.
    assert counts == CaptionObjects(
        num_mentions=4, num_hallucinated=2, num_present=2, num_recalled=1
    )


def test_unique_numerator_counts_a_hallucinated_object_once() -> None:
    counts = count_objects("A car, a car, a tie.", {"dog"}, OBJECTS, unique_numerator=True)
    assert (counts.num_mentions, counts.num_hallucinated) == (3, 2)


def test_corpus_figures_are_micro_averages() -> None:
    captions = [
        CaptionObjects(num_mentions=4, num_hallucinated=2, num_present=2, num_recalled=1),
        CaptionObjects(num_mentions=1, num_hallucinated=0, num_present=3, num_recalled=1),
        CaptionObjects(num_mentions=0, num_hallucinated=0, num_present=1, num_recalled=0),
        CaptionObjects(num_mentions=3, num_hallucinated=1, num_present=2, num_recalled=2),
    ]
    metrics = chair_metrics(captions)
    assert metrics["chair_s"] == 2 / 4  # the empty caption stays in the denominator
    assert metrics["chair_i"] == 3 / 8  # the mean of ratios would be (.5 + 0 + 1/3) / 3
    assert metrics["recall"] == 4 / 8
    assert metrics["num_object_mentions"] == 8
    assert metrics["num_hallucinated_mentions"] == 3


def test_silence_has_no_hallucination_and_no_recall() -> None:
    silent = CaptionObjects(num_mentions=0, num_hallucinated=0, num_present=2, num_recalled=0)
    metrics = chair_metrics([silent, silent])
    assert (metrics["chair_s"], metrics["chair_i"], metrics["recall"]) == (0.0, 0.0, 0.0)
    assert all(math.isfinite(value) for value in metrics.values())
