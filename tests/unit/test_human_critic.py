"""When people have said enough, and how far they agree."""

import pytest

from csr.agreement import agreement
from csr.annotations import Annotation, AnnotationVerdict, agreed_verdicts
from csr.critics import human
from csr.errors import DataError, VerdictsWanted
from csr.types import SkipReason
from tests.trees import make_prompt, make_tree, tree_of_responses

ACCEPT, REFUSE, SKIP = AnnotationVerdict
LETTERS = {"a": ACCEPT, "r": REFUSE, "s": SKIP}
PEOPLE = ("ada", "ben", "cid", "dan")


def said(**verdicts: str) -> list[Annotation]:
    """`p0="ar."`: of the response p/0 ada accepts, ben refuses, cid says nothing."""
    return [
        Annotation(
            response_id=f"{name[0]}/{name[1:]}",
            prompt_id=name[0],
            verdict=LETTERS[letter],
            annotator=person,
        )
        for name, letters in verdicts.items()
        for person, letter in zip(PEOPLE, letters, strict=False)
        if letter != "."
    ]


TREES = [
    tree_of_responses(make_prompt("p"), ["one", "two"]),
    tree_of_responses(make_prompt("q"), ["three", " "]),
]
"""Three responses that say something: p/0, p/1, q/0."""


def test_all_must_be_judged_by_one_person_unless_told_otherwise() -> None:
    critic = human.build(human.Config())
    with pytest.raises(VerdictsWanted, match="0 of 3 responses have been judged by 1 person"):
        critic.judge(TREES, [])
    given = said(p0="a", p1=".r")
    with pytest.raises(VerdictsWanted, match="2 of 3"):
        critic.judge(TREES, given)
    given += said(q0="s")  # who will not say has looked all the same
    assert critic.judge(TREES, given) == given


def test_one_person_twice_is_not_two() -> None:
    critic = human.build(human.Config(num_annotators=2, num_responses=1))
    with pytest.raises(VerdictsWanted, match="0 of 1 responses have been judged by 2 people"):
        critic.judge(TREES, said(p0="a") + said(p0="r") + said(q0="a"))
    given = said(p0="aa", q0="a")
    assert critic.judge(TREES, given) == given[:2]  # q/0 has not been judged by two


def test_a_quota_beyond_what_there_is_means_all() -> None:
    critic = human.build(human.Config(num_responses=100))
    with pytest.raises(VerdictsWanted, match="1 of 3"):
        critic.judge(TREES, said(p0="a"))
    assert len(critic.judge(TREES, said(p0="a", p1="a", q0="a"))) == 3


def test_nobody_waits_where_nothing_was_said() -> None:
    assert human.build(human.Config()).judge([tree_of_responses(make_prompt("p"), [])], []) == []


@pytest.mark.parametrize("name", ["q1", "p7", "z0"])
def test_verdicts_on_what_is_not_there_are_refused(name: str) -> None:
    """Nothing said, no such response, no such prompt."""
    with pytest.raises(DataError, match="Verdicts of another attempt are of no use"):
        human.build(human.Config()).judge(TREES, said(p0="a", p1="a", q0="a", **{name: "a"}))


def test_a_response_that_did_not_end_is_not_asked_for() -> None:
    tree = make_tree({"0": 1.0, "0.1": 1.0, "0.1/": 0.0, "1": 0.5}, prompt_id="p")
    given = [Annotation(response_id="p/0.1.9", prompt_id="p", verdict=ACCEPT, annotator="ada")]
    assert human.build(human.Config()).judge([tree], given) == given


def test_people_who_differ_make_a_response_disputed() -> None:
    assert agreed_verdicts(said(p0="ar", p1="aar", q0="ass")) == {
        "p/0": SkipReason.DISPUTED,
        "p/1": ACCEPT,
        "q/0": ACCEPT,
    }


def test_agreement_is_worked_by_hand() -> None:
    """Pairs that agree: 1, 0, 1 of 1 and 1 of 3; 6 of 9 votes accept: chance 36/81 + 9/81."""
    found = agreement(said(p0="aa", p1="ar", p2="rr", p3="aar", p4="a", p5="as"))
    assert found.num_responses == 4
    assert found.observed == pytest.approx((1 + 0 + 1 + 1 / 3) / 4)  # 0.5833
    chance = (5 / 9) ** 2 + (4 / 9) ** 2
    assert found.kappa == pytest.approx((7 / 12 - chance) / (1 - chance))


def test_fleiss_kappa_of_equal_numbers() -> None:
    """Three people, three responses: P = (1 + 1/3 + 1)/3 = 7/9, chance (5/9)^2 + (4/9)^2 = 41/81,
    kappa = (63 - 41) / (81 - 41).
    """
    found = agreement(said(p0="aaa", p1="aar", p2="rrr"))
    assert (found.observed, found.kappa) == (pytest.approx(7 / 9), pytest.approx(22 / 40))


def test_agreement_that_is_not_defined() -> None:
    alone = agreement(said(p0="a", p1=".r", p2="as"))
    assert (alone.num_responses, alone.observed, alone.kappa) == (0, None, None)
    same = agreement(said(p0="aa", p1="aaa"))
    assert (same.num_responses, same.observed, same.kappa) == (2, 1.0, None)
    opposed = agreement(said(p0="ar", p1="ra"))
    assert (opposed.observed, opposed.kappa) == (0.0, -1.0)
