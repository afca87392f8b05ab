"""A policy's own verdict on its sentences: what is asked, and what of the answer counts."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from csr.types import Prompt, StepCandidate, StepGroup
from rewards.calibrated import build
from rewards.raw import Step
from rewards.self_check import Config, self_check
from rewards.settings import Config as RewardConfig
from rewards.statistics import Moments, Statistics
from storage.run_store import RunStore
from storage.tables import read_table
from tests.scripted_run import Csr, write_recipe
from tests.trees import SpeakingSampler, babble, eos_step, make_prompt, make_step

YES, NO = (1,), (2,)


class Judge(SpeakingSampler):
    """Says yes to what mentions "red" with a probability of `seeing`, else of `blind`."""

    def __init__(self, seeing: float = 0.9, blind: float = 0.6) -> None:
        super().__init__(babble)
        self.seeing, self.blind = seeing, blind
        self.calls: list[list[tuple[str, str | None, bool]]] = []

    def encode_beginning(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        return {" Yes": YES, " No": NO}.get(text, ())

    def score(
        self,
        prompts: Sequence[Prompt],
        token_ids: Sequence[Sequence[int]],
        *,
        with_image: bool = True,
    ) -> list[tuple[float, ...]]:
        self.calls.append([(p.text, p.image.corruption, with_image) for p in prompts])
        rows = zip(prompts, token_ids, strict=True)
        return [(self._logprob(p, tuple(ids), with_image),) for p, ids in rows]

    def _logprob(self, prompt: Prompt, ids: tuple[int, ...], with_image: bool) -> float:
        shown = with_image and prompt.image.corruption is None
        yes = self.seeing if shown and "red" in prompt.text else self.blind
        return math.log(0.5 * (yes if ids == YES else 1 - yes))  # half the time something else


def steps(*candidates: StepCandidate, prompt: Prompt | None = None) -> list[Step]:
    group = StepGroup(prompt=prompt or make_prompt(), prefix=(), candidates=candidates)
    return [Step(group, candidate) for candidate in candidates]


def test_each_sentence_is_a_question_about_the_image():
    judge = Judge()
    config = Config(template="Is it so? {claim}")
    red, blue = make_step(" A red ring."), make_step(" A blue ring.")
    found = self_check(steps(red, blue), judge, config)
    assert found == pytest.approx([0.9, 0.6])
    assert judge.calls == [
        [("Is it so? A red ring.", None, True)] * 2 + [("Is it so? A blue ring.", None, True)] * 2
    ]


@pytest.mark.parametrize("kind", ["none", "blank", "both"])
def test_the_habit_of_saying_yes_is_taken_off(kind):
    judge = Judge(seeing=0.9, blind=0.6)
    red, blue = self_check(
        steps(make_step(" A red ring."), make_step(" A blue ring.")),
        judge,
        Config(content_free=kind),
    )
    # 0.9 / 0.6 = 1.5 against 0.1 / 0.4 = 0.25; what is no more likely than by habit has a half
    assert red == pytest.approx(1.5 / 1.75, abs=1e-3)
    assert blue == pytest.approx(0.5, abs=1e-3)
    assert len(judge.calls) == (1 if kind == "blank" else 2)


def test_a_sentence_said_twice_of_one_image_is_asked_once():
    judge = Judge()
    same = [make_step(" A red ring."), make_step(" A red ring.")]
    other = steps(same[0], prompt=make_prompt("43"))
    assert self_check(steps(*same) + other, judge, Config()) == pytest.approx([0.9] * 3)
    assert len(judge.calls[0]) == 2 * 2  # two images, "yes" and "no"


def test_a_sentence_cannot_spell_an_image_marker():
    judge = Judge()
    self_check(steps(make_step(" A red <image> [IMG] ring.")), judge, Config())
    asked = judge.calls[0][0][0]
    assert asked.startswith("A red image IMG ring.\n")


def test_it_is_a_part_of_the_reward():
    statistics = Statistics(
        likelihood=Moments(mean=-0.5, sd=0.4, count=100), image_similarity=None,
        likelihood_kind="mean_logprob", likelihood_scope="first",
        evidence={"self_check": Moments(mean=0.7, sd=0.2, count=99)},
        evidence_inputs={"self_check": Config().model_dump(mode="json")},
    )  # fmt: skip
    config = RewardConfig(image_weight=0.0, self_check_weight=0.8, clip_high=3)
    group = StepGroup(
        prompt=make_prompt(), prefix=(), candidates=(make_step(" A red ring."), eos_step())
    )
    ((red, end),) = build(config, None, statistics, Judge()).score([group])
    assert red.breakdown["self_check"] == pytest.approx(0.9)
    # (0.9 - 0.7) / 0.2 + 0.5 = 1.5; the likelihood is its mean
    assert red.reward == pytest.approx(0.8 * 1.5)
    assert (end.reward, end.breakdown["self_check"]) == (0.0, 0.0)


@pytest.mark.parametrize("template", ["Is it so?", "{claim} and {claim}?"])
def test_a_template_holds_the_claim_once(template):
    with pytest.raises(ValidationError, match=r"exactly once.*it holds it \d times"):
        Config(template=template)


def test_the_weights_of_all_parts_fit_together():
    with pytest.raises(ValidationError, match=r"pmi_weight 0\.5 \+ self_check_weight 0\.6"):
        RewardConfig(image_weight=0.0, pmi_weight=0.5, self_check_weight=0.6)


def test_a_whole_run_with_both_kinds_of_evidence(csr: Csr, tmp_path: Path):
    replies = ["Yes.", "No.", "A red ring. A blue ring.", "A red ring. No more.", "One. Two."]
    recipe = write_recipe(
        tmp_path / "data",
        num_iterations=1,
        sampler={"name": "scripted", "replies": replies},
        trainer={"name": "scripted", "replies": [*replies]},
        similarity=None,
        reward={
            "image_weight": 0.0, "pmi_weight": 0.3, "self_check_weight": 0.4,
            "self_check": {"content_free": "none"},
        },
    )  # fmt: skip
    home = tmp_path / "home"
    assert csr("run", recipe, "--run-id", "mine", "--home", home).status == 0
    rows = read_table(RunStore(home).attempt("mine", 1).nodes, "nodes").to_pylist()
    found = [{p["name"]: p["value"] for p in row["breakdown"]} for row in rows]
    assert all(0 <= parts["self_check"] <= 1 for parts in found)
    assert {"pmi_calibrated", "self_check_calibrated"} <= set(found[0])
    assert len({parts["self_check"] for parts in found}) > 5
