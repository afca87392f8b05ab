"""Rewrites of answers by rule."""

import random

import pytest

from csr.sources._rewrites import Cooccurrence, Edit, cooccurrence, rewrite
from csr.vocabulary import Mention, SynonymTable, Vocabulary

OBJECTS = SynonymTable(
    {
        "dog": ["dog", "dogs"],
        "cat": ["cat", "cats"],
        "hot dog": ["hot dog", "hot dogs"],
        "elephant": ["elephant", "elephants"],
    }
)
COLOURS = SynonymTable({"red": ["red"], "orange": ["orange"], "white": ["white"]})
BOTH = Vocabulary(OBJECTS, {"colour": COLOURS})
OBJECTS_ALONE = Vocabulary(OBJECTS, {})
COLOURS_ALONE = Vocabulary(SynonymTable({}), {"colour": COLOURS})
NOTHING: Cooccurrence = Cooccurrence()


def made(text: str, vocabulary: Vocabulary, num_edits: int = 1, seed: int = 0) -> str | None:
    found = rewrite(text, vocabulary, NOTHING, num_edits, random.Random(seed))
    return found.text if found else None


def test_mentions_have_their_places_whatever_the_case() -> None:
    text = "İ: two Dogs eat a HOT  dog."
    assert OBJECTS.mentions(text) == [
        Mention(name="dog", start=7, end=11),
        Mention(name="hot dog", start=18, end=26),
    ]
    assert text[18:26] == "HOT  dog"


def test_what_occurs_together_is_counted_once_an_answer() -> None:
    answers = ["A dog and a dog and a cat.", "Cats. Dogs.", "A cat eats a hot dog."]
    assert cooccurrence(answers, OBJECTS) == {
        ("cat", "dog"): 2,
        ("dog", "cat"): 2,
        ("cat", "hot dog"): 1,
        ("hot dog", "cat"): 1,
    }


def test_an_object_becomes_one_that_goes_with_the_others() -> None:
    together = Cooccurrence({("elephant", "cat"): 3, ("hot dog", "cat"): 0})
    found = rewrite("A dog and a cat.", OBJECTS_ALONE, together, 1, random.Random(1))
    assert found is not None
    (edit,) = found.edits
    # With the cat goes the elephant alone; with the dog nothing, so anything may.
    if edit.before == "dog":
        assert found.text == "An elephant and a cat."
    assert edit.after not in ("dog", "cat")


def test_every_mention_of_an_object_changes_and_keeps_its_form() -> None:
    text = "Dogs run. The dog is old, an old dog."
    only = Vocabulary(SynonymTable({k: OBJECTS.wordings[k] for k in ("dog", "cat")}), {})
    assert made(text, only) == "Cats run. The cat is old, an old cat."


def test_an_attribute_changes_at_one_place_and_the_article_follows() -> None:
    two = Vocabulary(
        SynonymTable({}), {"colour": SynonymTable({"red": ["red"], "orange": ["orange"]})}
    )
    assert made("A red ball.", two) == "An orange ball."
    assert made("An orange ball.", two) == "A red ball."


def test_what_the_answer_says_elsewhere_is_never_put_in() -> None:
    for seed in range(20):
        assert made("A red dog. A white cat.", COLOURS_ALONE, seed=seed) in (
            "An orange dog. A white cat.",
            "A red dog. An orange cat.",
        )
    assert made("Red, orange and white.", COLOURS_ALONE) is None


def test_there_are_as_many_edits_as_there_are_things_to_exchange() -> None:
    found = rewrite("A red dog.", BOTH, NOTHING, 3, random.Random(4))
    assert found is not None
    assert {edit.kind for edit in found.edits} == {"object", "colour"}
    assert all(edit.before not in found.text.split() for edit in found.edits)
    assert made("Nothing to see.", BOTH) is None
    assert made("", BOTH) is None


def test_two_edits_never_put_in_the_same_word() -> None:
    for seed in range(20):
        found = rewrite("A dog. A cat.", OBJECTS_ALONE, NOTHING, 2, random.Random(seed))
        assert found is not None
        assert {edit.after for edit in found.edits} == {"elephant", "hot dog"}


@pytest.mark.parametrize("seed", range(10))
def test_the_same_draw_is_the_same_rewrite(seed: int) -> None:
    text = "A red dog and a white cat."
    first, again = (rewrite(text, BOTH, NOTHING, 2, random.Random(seed)) for _ in range(2))
    assert first == again


def test_an_edit_tells_what_was_said_and_what_is() -> None:
    only = Vocabulary(SynonymTable({k: OBJECTS.wordings[k] for k in ("dog", "cat")}), {})
    found = rewrite("A dog.", only, NOTHING, 1, random.Random(0))
    assert found is not None
    assert found.edits == (Edit(kind="object", before="dog", after="cat"),)
