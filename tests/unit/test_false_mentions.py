"""Which words of a text an image contradicts; worked by hand."""

from itertools import pairwise

import pytest

from csr.truthfulness import FalseMention, false_mentions
from csr.vocabulary import SynonymTable, Vocabulary
from flows.marking import Piece, num_absent, pieces

VOCABULARY = Vocabulary(
    SynonymTable({"dog": ["dog", "dogs"], "hot dog": ["hot dog"], "cat": ["cat"]}),
    {"colour": SynonymTable({"red": ["red"], "blue": ["blue", "navy blue"]})},
)
SCENE = [{"name": "dog", "colour": "red"}, {"name": "dog", "colour": "blue"}]


def found(text: str) -> list[tuple[str, str]]:
    marks = false_mentions(text, SCENE, VOCABULARY)
    assert all(one.end <= other.start for one, other in pairwise(marks))
    return [(mark.kind, text[mark.start : mark.end]) for mark in marks]


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("A red dog. A navy blue dog.", []),
        ("A cat. Two dogs.", [("object", "cat")]),
        ("A hot dog.", [("object", "hot dog")]),  # its words are used up
        ("A red dog and a cat.", [("object", "cat")]),  # two objects: no telling whose colour
        ("A red cat.", [("object", "cat")]),  # an absent thing has no colour to be wrong about
        ("A red, blue dog.", [("colour", "red"), ("colour", "blue")]),  # no dog is both
        ("Hm. A CAT!\nA cat", [("object", "CAT"), ("object", "cat")]),
        ("", []),
        ("red blue", []),
    ],
)
def test_absent_objects_and_wrong_attributes(text: str, marks: list[tuple[str, str]]) -> None:
    assert found(text) == marks


def test_a_wrong_colour_stands_where_it_was_said() -> None:
    text = "  A blue dog. A red dog."
    one_dog = [{"name": "dog", "colour": "blue"}]
    assert false_mentions(text, one_dog, VOCABULARY) == [
        FalseMention(kind="colour", name="red", start=16, end=19)
    ]


def test_pieces_are_the_text_again() -> None:
    text = " A red cat and a cat. "
    marks = false_mentions(text, SCENE, VOCABULARY)
    cut = pieces(text, marks)
    assert cut == [Piece("A red "), Piece("cat", "object"), Piece(" and a "),
                   Piece("cat", "object"), Piece(".")]  # fmt: skip
    assert [piece.told for piece in cut] == ["", "not in the image", "", "not in the image", ""]
    assert Piece("red", "colour").told == "wrong colour"
    assert num_absent(marks) == 2
    assert pieces(text, None) == [Piece("A red cat and a cat.")]
    assert pieces("  ", ()) == []
    assert num_absent(None) == 0
