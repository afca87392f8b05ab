"""Where sentences end: cases by hand, and properties of any text."""

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from csr.protocols import StepRule
from csr.steps import split_steps, step_end, stop_strings

RULES: tuple[StepRule, ...] = ("sentence", "period")

BY_HAND = [
    ("A cat sits. A dog runs.", ["A cat sits.", " A dog runs."]),
    ("Is it? Yes! Good.", ["Is it?", " Yes!", " Good."]),
    ("It is 3.5 m tall. Wow.", ["It is 3.5 m tall.", " Wow."]),
    ("About 1,000.25 of them. Yes.", ["About 1,000.25 of them.", " Yes."]),
    ("Mr. Smith meets Dr. No. They talk.", ["Mr. Smith meets Dr. No.", " They talk."]),
    ("Fruit, e.g. pears, lie here. Fine.", ["Fruit, e.g. pears, lie here.", " Fine."]),
    ("The U.S. flag waves. Yes.", ["The U.S. flag waves.", " Yes."]),
    ("J. Smith waits. B. Jones too.", ["J. Smith waits.", " B. Jones too."]),
    ("It isn't. The cat's. Ok.", ["It isn't.", " The cat's.", " Ok."]),
    ("1. A cat\n2. A dog\n", ["1. A cat\n", "2. A dog\n"]),
    ("\n\nA cat sits.\n\nA dog.\n", ["\n\nA cat sits.", "\n\nA dog.\n"]),
    ('He said "stop." Then "go!" he said.', ['He said "stop."', ' Then "go!"', " he said."]),
    ("(It rains.) So what?! Well... yes.", ["(It rains.)", " So what?!", " Well...", " yes."]),
    ("Pick 'B. Red' now. Go.", ["Pick 'B. Red' now.", " Go."]),
    ("Cups, forks, etc. All clean.", ["Cups, forks, etc.", " All clean."]),
    ("No. It is red.", ["No.", " It is red."]),
    ("It was in 1999. The end.", ["It was in 1999. The end."]),
    ("It was in 1999.\nThe end.", ["It was in 1999.\n", "The end."]),
    ("猫\u3002狗\uff01", ["猫\u3002", "狗\uff01"]),
    ("no end yet", ["no end yet"]),
    ("A cat. and more", ["A cat.", " and more"]),
    ("...", ["..."]),
    (" \n", [" \n"]),
    ("", []),
]


@pytest.mark.parametrize(("text", "steps"), BY_HAND)
def test_sentences_by_hand(text: str, steps: list[str]) -> None:
    assert split_steps(text, "sentence") == steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Mr. A is 3.5 m! Yes.", ["Mr.", " A is 3.", "5 m! Yes."]),
        ("One\ntwo. three", ["One\ntwo.", " three"]),
        ("a..", ["a.", "."]),
    ],
)
def test_the_period_rule_ends_at_any_dot(text: str, steps: list[str]) -> None:
    assert split_steps(text, "period") == steps


@pytest.mark.parametrize(
    ("prefix", "text", "end"),
    [
        (" Meet Mr", ". Fox now.", 10),
        (" Meet Pr", "of. Fox.", 8),
        (" It isn", "'t. No.", 3),
        (" It is 3", ".5 m tall.", 10),
        (" The U.S", ". flag\n", 7),
        (" A cat sits.", " It sleeps.", 11),
        (" A cat sits.", "\n\n", None),
        ("", "Mr.", None),
        ("", "A cat.\n", 6),
        ("", 'A cat." Then', 7),
    ],
)
def test_the_prefix_is_looked_back_into(prefix: str, text: str, end: int | None) -> None:
    assert step_end(text, "sentence", prefix) == end


def test_every_end_lies_behind_a_stop_string() -> None:
    assert stop_strings("period") == (".",)
    for text, steps in BY_HAND:
        for step in steps[:-1]:
            assert any(mark in step for mark in stop_strings("sentence")), text


WORDS = ["A cat", " sits", " Mr.", " e.g.", "U.S.", "t", " isn't", "3", "3.5", "1. ", "5", "\u00e9"]
MARKS = [".", "!", "?", "\n", "\u3002", "...", ",", " ", '"', ")", "'"]
PIECES = st.sampled_from(WORDS + MARKS)
TEXTS = st.one_of(st.lists(PIECES, max_size=14).map("".join), st.text(max_size=30))


@given(TEXTS)
def test_steps_joined_are_the_text(text: str) -> None:
    for rule in RULES:
        assert "".join(split_steps(text, rule)) == text


@given(TEXTS)
@example("a!'t.")
@example("a.S. b")
def test_splitting_a_step_again_changes_nothing(text: str) -> None:
    for rule in RULES:
        for step in split_steps(text, rule):
            assert split_steps(step, rule) == [step]


@given(TEXTS)
def test_no_step_ends_inside_a_number_or_a_title(text: str) -> None:
    steps = split_steps(text, "sentence")
    for left, right in pairwise(steps):
        assert not re.search(r"\d\.\Z", left)
        assert not re.search(r"(^|[\s.])(Mr|Dr|e\.g|U\.S)\.\Z", left), (left, right)
        assert any(character.isalnum() for character in left)


def streamed_marks(text: str, rule: StepRule) -> list[int]:
    """Indices of the ending marks, found by growing the text one character at a time."""
    marks, start = [], 0
    for grown in range(1, len(text) + 1):
        end = step_end(text[start:grown], rule, text[:start])
        if end is not None:
            assert start + end == grown, "a step ends at the newest character"
            marks.append(grown - 1)
            start = grown
    return marks


CLOSING = set(".!?\u3002\uff01\uff1f" + "\"'\u2019\u201d\u00bb)]}*_")


@given(TEXTS)
@example("a.}")
@example("a.*_")
def test_growing_text_ends_at_the_same_marks_as_the_whole(text: str) -> None:
    """A streamed end can only miss marks and quotes that had not arrived yet."""
    for rule in RULES:
        marks, start = streamed_marks(text, rule), 0
        for mark in marks:
            end = step_end(text[start:], rule, text[:start])
            assert end is not None
            assert start <= mark < start + end
            assert set(text[mark + 1 : start + end]) <= CLOSING
            start += end
        assert step_end(text[start:], rule, text[:start]) is None


@given(TEXTS, st.integers(0, 30))
def test_a_prefix_only_helps_to_look_back(text: str, cut: int) -> None:
    """Ends found with a prefix are ends of the whole text, where the cut was an end."""
    steps = split_steps(text, "sentence")
    cut = min(cut, len(steps))
    prefix, rest = "".join(steps[:cut]), "".join(steps[cut:])
    end = step_end(rest, "sentence", prefix)
    assert end == step_end(rest, "sentence")
