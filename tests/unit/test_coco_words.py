"""What CHAIR's rules find in captions, case by case."""

from pathlib import Path

import pytest

from csr.errors import DataError
from csr.evaluation._coco_words import OWN_SYNONYMS, CocoWords, read_synonyms
from csr.evaluation._plurals import singular_forms

CLASSES = [line.split(", ")[0] for line in OWN_SYNONYMS.read_text().splitlines()]


@pytest.fixture(scope="module")
def words() -> CocoWords:
    return read_synonyms(OWN_SYNONYMS)


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("A dog.", ["dog"]),
        ("Two dogs, a puppy and DOGS", ["dog", "dog", "dog"]),  # every mention counts
        ("A man rides a horse.", ["person", "horse"]),
        ("Men, women and children", ["person", "person", "person"]),
        ("People on benches", ["person", "bench"]),
        ("Two buses", ["bus"]),
        ("A bus", ["bus"]),
        ("Wine glasses and knives", ["wine glass", "knife"]),
        ("A glass of wine", []),
        ("Mice, sheep, oxen and geese", ["mouse", "sheep", "cow", "bird"]),
        ("skis and scissors", ["skis", "scissors"]),
        ("Puppies on couches with sandwiches", ["dog", "couch", "sandwich"]),
        ("A baby bird", ["bird"]),  # no person
        ("Baby elephants and an adult giraffe", ["elephant", "giraffe"]),
        ("A baby", ["person"]),
        ("A baby animal and bear cubs", ["bear"]),
        ("A passenger train passes a passenger jet", ["train", "airplane"]),
        ("A passenger waits", ["person"]),
        ("A hot dog and a dog", ["hot dog", "dog"]),
        ("It is hot, dog lovers", ["dog"]),  # a comma keeps the words apart
        ("traffic lights and fire hydrants", ["traffic light", "fire hydrant"]),
        ("A man in a bow tie", ["person", "tie"]),
        ("A toilet seat", ["toilet"]),
        ("The seat of the toilet is up", ["toilet"]),  # no chair
        ("The seat is up", ["chair"]),
        ("A train on the train tracks", ["train"]),
        ("A player at home plate", ["person"]),
        ("teddy bears", ["teddy bear"]),
        ("A tennis racket, a sports ball", ["tennis racket", "sports ball"]),
        ("a laptop computer", ["laptop"]),
        ("A man-eating shark", []),  # a hyphen makes one word
        ("the dog's bowl", ["dog", "bowl"]),
        ("\u201cDog\u201d", ["dog"]),
        ("This is his stove", ["oven"]),
        ("", []),
    ],
)
def test_mentions(words: CocoWords, caption: str, found: list[str]) -> None:
    assert words.find(caption) == found


def test_places_of_mentions(words: CocoWords) -> None:
    text = "\u0130 see hot dogs."  # a letter that becomes two in lower case
    (mention,) = words.mentions(text)
    assert text[mention.start : mention.end] == "hot dogs"
    assert mention.name == "hot dog"


def test_the_own_table_has_each_class_of_coco_and_finds_it_and_its_plural(
    words: CocoWords,
) -> None:
    assert len(CLASSES) == 80
    for name in CLASSES:
        assert words.find(f"There is a {name}.") == [name]
    for name in ("bus", "bench", "sheep", "wine glass", "toothbrush", "knife", "mouse", "couch"):
        plural = {"sheep": "sheep", "knife": "knives", "mouse": "mice"}.get(name, f"{name}es")
        assert words.find(f"There are {plural}.") == [name]


def test_every_wording_of_the_own_table_is_found_as_its_class(words: CocoWords) -> None:
    for line in OWN_SYNONYMS.read_text().splitlines():
        name, *wordings = line.split(", ")
        for wording in wordings:
            assert words.find(wording) == [name], wording


def official(**changes: str) -> str:
    """A table in the authors' form with their oddities: spaces and capitals too many."""
    lines = {name: name for name in CLASSES}
    lines["motorcycle"] = "motorcycle, scooter,  motor bike, motor cycle"
    lines["cell phone"] = "cell phone, iPhone"
    lines["cow"] = "cow, holstein, bison "
    return "\n".join((lines | changes).values()) + "\n"


def test_wordings_are_taken_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text(official())
    words = read_synonyms(path)
    assert words.find("A motor bike and an iPhone") == []  # as in the authors' code
    assert words.find("A motor cycle, a scooter and bison") == ["motorcycle", "motorcycle", "cow"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("person, man\n", "1 lines, and COCO has 80 classes"),
        (official(cat="cat, dog"), "'dog' stands under both 'cat' and 'dog'"),
        ("", "0 lines"),
    ],
)
def test_a_table_of_another_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_synonyms(path)


def test_singular_forms() -> None:
    forms = singular_forms(["bus", "knife", "thief", "puppy", "boy", "mango", "gentleman", "ox"])
    assert forms["buses"] == "bus"
    assert forms["knives"] == "knife"
    assert forms["thieves"] == "thief"
    assert forms["puppies"] == "puppy"
    assert forms["boys"] == "boy"
    assert forms["mangoes"] == forms["mangos"] == "mango"
    assert forms["gentlemen"] == "gentleman"
    assert forms["oxen"] == "ox"
    assert "bus" not in forms
    assert "boies" not in forms


def test_a_listed_word_is_no_plural() -> None:
    forms = singular_forms(["ski", "skis", "person", "people"])
    assert "skis" not in forms
    assert "people" not in forms
    assert forms["persons"] == "person"
