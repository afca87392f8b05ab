"""Critics that need no people, and what several verdicts amount to."""

import json

import pytest

from csr.annotations import Annotation, AnnotationVerdict, agreed_verdicts
from csr.critics import oracle, rouge_l
from csr.errors import DataError
from csr.rouge import rouge_l as likeness
from csr.types import SkipReason
from tests.trees import make_prompt, tree_of_responses

ACCEPT, REFUSE, SKIP = AnnotationVerdict
VOCABULARY = {
    "objects": {"circle": ["circle"], "ring": ["ring"]},
    "attributes": {"colour": {"red": ["red"], "blue": ["blue"]}},
}


def test_rouge_l_is_worked_by_hand():
    """Four of five words said, four of four wanted: P = .8, R = 1, F = 2.44 x .8 / (1 + 1.152)."""
    assert likeness("A red ring is there.", "red ring is there") == pytest.approx(1.952 / 2.152)
    assert likeness("the cat sat", "sat the cat") == pytest.approx(2 / 3)  # in order: "the cat"
    assert likeness("same words", "Same words!") == 1.0
    assert likeness("", "something") == 0.0


def test_the_likeness_critic_accepts_at_its_threshold():
    tree = tree_of_responses(
        make_prompt("a", reference="a red ring"), ["a red ring", "a red circle", "no"]
    )
    critic = rouge_l.build(rouge_l.Config(threshold=2 / 3, min_characters=3))
    found = {each.response_id: (each.verdict, each.score) for each in critic.judge([tree], ())}
    assert found["a/0"] == (ACCEPT, 1.0)
    assert found["a/1"] == (ACCEPT, pytest.approx(2 / 3))
    assert found["a/2"] == (REFUSE, 0.0)


def test_the_likeness_critic_needs_references():
    critic = rouge_l.build(rouge_l.Config())
    with pytest.raises(DataError, match="'a' has no reference"):
        critic.judge([tree_of_responses(make_prompt("a"), ["a red ring"])], ())


@pytest.fixture
def facts(tmp_path):
    (tmp_path / "vocabulary.json").write_text(json.dumps(VOCABULARY))
    record = {"id": "a", "objects": [{"name": "circle", "colour": "red"}]}
    (tmp_path / "facts.jsonl").write_text(json.dumps(record))
    return oracle.Config(
        facts=str(tmp_path / "facts.jsonl"), vocabulary=str(tmp_path / "vocabulary.json")
    )


def test_the_oracle_accepts_what_is_true_in_every_sentence(facts):
    said = ["A red circle.", "A blue circle.", "A circle.", "A red circle. A red ring."]
    verdicts = oracle.build(facts).judge([tree_of_responses(make_prompt("a"), said)], ())
    assert [each.verdict for each in verdicts] == [ACCEPT, REFUSE, REFUSE, REFUSE]


def test_the_oracle_must_know_every_prompt(facts):
    with pytest.raises(DataError, match="says nothing of the prompt 'b'"):
        oracle.build(facts).judge([tree_of_responses(make_prompt("b"), ["A red circle."])], ())


def test_most_annotators_decide_and_a_tie_is_a_dispute():
    def says(response_id, *verdicts):
        return [
            Annotation(response_id=response_id, prompt_id="a", verdict=v, annotator=str(n))
            for n, v in enumerate(verdicts)
        ]

    given = [
        *says("a/0", ACCEPT, REFUSE, ACCEPT),
        *says("a/1", ACCEPT, REFUSE),
        *says("a/2", SKIP, SKIP),
        *says("a/3", SKIP, REFUSE),
    ]
    assert agreed_verdicts(given) == {
        "a/0": ACCEPT,
        "a/1": SkipReason.DISPUTED,
        "a/2": SkipReason.NO_VERDICT,
        "a/3": REFUSE,
    }
