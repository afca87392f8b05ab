"""What a policy can be taught beside describing: true, in the form that the methods ask for."""

import json
import random

import pytest

from csr.sources._policy_rewrites import PolicyRewriteSettings, accepted
from csr.sources.sima import parse_verdict
from csr.types import FinishReason, GeneratedResponse
from csr.world.abilities import exchange, num_mistakes
from csr.world.captions import CaptionSettings, mentions
from csr.world.scenes import Scene, SceneObject

GREEN_CIRCLE = SceneObject(name="circle", colour="green", position="middle center")
BLUE_CROSS = SceneObject(name="cross", colour="blue", position="top right")
SCENE = Scene(scene_id="by-hand", objects=(GREEN_CIRCLE, BLUE_CROSS), noise_seed=1)
"""The companions of its shapes, the square and the diamond, are absent."""
TRUTH = "A green circle is at the middle center. There is a blue cross in the top right."
TRUE_MENTIONS = mentions(TRUTH)
CARELESS = CaptionSettings(omit=0.0, hallucinate=1.0, typical_colour=1.0, typical_position=1.0)
SEEDS = range(40)


@pytest.mark.parametrize(
    ("told", "num"),
    [
        (TRUTH, 0),
        ("A green circle is at the middle center.", 1),  # one left out
        (TRUTH + " A yellow square is at the bottom right.", 1),  # one invented
        (TRUTH.replace("blue", "red"), 2),  # one left out, and one that is not so
        ("", 2),
    ],
)
def test_mistakes_are_what_is_left_out_and_what_is_not_so(told: str, num: int) -> None:
    assert num_mistakes(told, SCENE) == num


@pytest.mark.parametrize("habits", [None, CARELESS])
def test_who_looks_carefully_tells_the_truth(habits: CaptionSettings | None) -> None:
    for seed in SEEDS:
        _, told = exchange("look", SCENE, random.Random(seed), habits)
        assert mentions(told) == TRUE_MENTIONS


def test_who_imagines_tells_of_an_absent_companion_too() -> None:
    for seed in SEEDS:
        _, told = exchange("imagine", SCENE, random.Random(seed), None)
        names = {each.name for each in mentions(told)}
        assert names > {"circle", "cross"}
        assert names - {"circle", "cross"} <= {"square", "diamond"}  # companions of the two


def test_a_claim_is_confirmed_where_it_holds() -> None:
    answers = set()
    for seed in SEEDS:
        prompt, answer = exchange("verify", SCENE, random.Random(seed), None)
        (claim,) = mentions(prompt)
        assert answer == ("Yes." if claim in TRUE_MENTIONS else "No.")
        answers.add(answer)
    assert answers == {"Yes.", "No."}


def test_an_answer_is_explained_by_what_is_there() -> None:
    for seed in SEEDS:
        prompt, told = exchange("explain", SCENE, random.Random(seed), None)
        (shown,) = mentions(told)
        assert shown in TRUE_MENTIONS
        assert prompt == f"Is there a {shown.name} in the image? Yes. Describe it."


def test_the_caption_with_fewer_mistakes_is_judged_better() -> None:
    verdicts = set()
    for seed in SEEDS:
        prompt, verdict = exchange("judge", SCENE, random.Random(seed), None)
        reference, rest = prompt.split(" 1: ")
        first, rest = rest.split(" 2: ")
        second, _ = rest.split(" Is it 1 or 2?")
        assert mentions(reference) == TRUE_MENTIONS
        mistakes = [num_mistakes(text, SCENE) for text in (first, second)]
        assert parse_verdict(verdict) == mistakes.index(min(mistakes))
        verdicts.add(verdict)
    assert verdicts == {"[[1]]", "[[2]]"}


def test_a_rewrite_has_one_mistake_and_is_what_povid_accepts() -> None:
    for seed in SEEDS:
        prompt, answer = exchange("rewrite", SCENE, random.Random(seed), CARELESS)
        reference = prompt.removesuffix(" Say it again with one mistake, as JSON.")
        assert mentions(reference) == TRUE_MENTIONS
        said = json.loads(answer)
        differing = [
            (old, new)
            for old, new in zip(TRUE_MENTIONS, mentions(said["rewritten"]), strict=True)
            if old != new
        ]
        ((old, new),) = differing
        assert old.name == new.name
        assert (old.colour == new.colour) != (old.position == new.position)
        response = GeneratedResponse(
            prompt_id="p", text=answer, token_ids=(1,), token_logprobs=(-0.1,),
            finish_reason=FinishReason.EOS,
        )  # fmt: skip
        rewrite = accepted(reference, response, PolicyRewriteSettings())
        assert rewrite is not None
        assert rewrite.edits == tuple(said["edits"])
