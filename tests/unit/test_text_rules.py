import pytest

from csr.text_rules import is_clean_step, repetition


@pytest.mark.parametrize(
    "text",
    [
        " A red circle is at the top left.",
        "",
        " ",
        " very very very very very good.",
        " hmmmmmmmmmm.",
        " one&nbsp;two.",
        "\n\n- Café tables, 3.5 m wide.",
        " a.b.",
    ],
)
def test_clean(text: str):
    assert is_clean_step(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (" A кот sits.", "Cyrillic"),
        (" A \uace0 sits.", "Hangul"),
        (" A \u306d sits.", "kana"),
        (" A cat sits \U0001f431.", "pictograph"),
        (" two&nbsp;&nbsp;spaces.", "hard spaces"),
        (" very very very very very very good.", "a word six times"),
        (" hmmmmmmmmmmm.", "a character eleven times"),
        (" a . . . . . . . . . . .", "the same with spaces between"),
        ("a\n\n\n\n\n\nbcde.", "six newlines"),
        (" ab.", "three characters"),
        (" \u4e00\u4e01\u4e02\u4e03\u4e04.", "one plain character"),
    ],
)
def test_not_clean(text: str, fault: str):
    assert not is_clean_step(text), fault


def test_repetition_by_hand():
    # Runs of "a b c d a b c d": abcd bcda cdab dabc abcd: one of five came before.
    assert repetition("a b c d a b c d") == pytest.approx(0.2)
    assert repetition("A b, c d! a B c D") == pytest.approx(0.2)


def test_repetition_of_texts_too_short_to_repeat():
    assert repetition("") == repetition("one two three") == repetition("a a a a") == 0.0


def test_repetition_grows_with_each_copy():
    sentence = "there is a red circle at the top left . "
    # Nine words a copy. Twice: 15 runs, 9 distinct (the first copy's 6, 3 over the seam).
    assert repetition(sentence * 2) == pytest.approx(6 / 15)
    # Thrice: 24 runs, 9 distinct.
    assert repetition(sentence * 3) == pytest.approx(15 / 24)
