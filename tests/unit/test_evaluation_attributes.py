import pytest

from csr.evaluation._attributes import attribute_metrics
from csr.truthfulness import SentenceVerdict, judge_sentence
from csr.vocabulary import SynonymTable

OBJECTS = SynonymTable({"circle": ["circle"], "square": ["square", "squares"]})
ATTRIBUTES = {
    "colour": SynonymTable({"red": ["red"], "blue": ["blue"]}),
    "position": SynonymTable({"top": ["top"], "top left": ["top left"]}),
}
SCENE = [
    {"name": "circle", "colour": "red", "position": "top left"},
    {"name": "circle", "colour": "blue", "position": "top"},
]


def judge(sentence: str) -> SentenceVerdict:
    return judge_sentence(sentence, SCENE, OBJECTS, ATTRIBUTES)


@pytest.mark.parametrize(
    ("sentence", "right", "all_right"),
    [
        ("A red circle is at the top left.", {"colour": True, "position": True}, True),
        ("A blue circle is at the top.", {"colour": True, "position": True}, True),
        # Each attribute is right of some circle, but of no one circle.
        ("A red circle is at the top.", {"colour": True, "position": True}, False),
        ("A circle is at the top.", {"position": True}, False),
        ("A red and blue circle.", {"colour": False}, False),
        ("A circle.", {}, False),
    ],
)
def test_a_present_object(sentence: str, right: dict[str, bool], all_right: bool) -> None:
    verdict = judge(sentence)
    assert verdict == SentenceVerdict(
        objects=("circle",), present=True, right=right, all_right=all_right
    )


def test_an_absent_object_has_no_attributes_to_judge() -> None:
    verdict = judge("A red square at the top left.")
    assert verdict == SentenceVerdict(objects=("square",), present=False, right={}, all_right=False)


def test_several_objects_are_not_judged() -> None:
    verdict = judge("A red circle beside a square at the top left.")
    assert verdict.objects == ("circle", "square")
    assert not verdict.present
    assert verdict.right == {}


def test_corpus_figures() -> None:
    captions = [
        [
            judge("A red circle is at the top left."),  # both right
            judge("A red circle is at the top."),  # both right of some circle, not all right
            judge("A blue square is at the top."),  # absent
        ],
        [judge("It is nice."), judge("A red and blue circle."), judge("Squares by a circle.")],
    ]
    metrics = attribute_metrics(captions, ["colour", "position"])
    assert metrics["colour_accuracy"] == 2 / 3
    assert metrics["position_accuracy"] == 1.0
    assert metrics["sentence_accuracy"] == 1 / 6
    # Named: circle, circle again, square | circle, square, circle again.
    assert metrics["repeated_object_share"] == 2 / 6
    assert metrics["num_multi_object_sentences"] == 1


def test_nothing_said_scores_zero() -> None:
    metrics = attribute_metrics([[], []], ["colour"])
    assert set(metrics.values()) == {0.0}
