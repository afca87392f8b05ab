"""PMI of text and image, by hand, and as a part of the reward."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from csr.errors import ConfigError, NumericalError
from csr.samplers import scripted
from csr.types import Prompt, StepGroup, StepScore
from rewards.calibrated import build, calibrate, recalibrate
from rewards.pmi import pmi
from rewards.raw import RawParts, Step
from rewards.settings import Config
from rewards.statistics import Moments, Statistics, measure_statistics
from storage.run_store import RunStore
from storage.tables import read_table
from tests.scripted_run import Csr, write_recipe
from tests.trees import POLICY, SpeakingSampler, babble, eos_step, make_prompt, make_step, make_tree

WEIGHTS = {"image_weight": 0.0, "pmi_weight": 0.6}
STATISTICS = Statistics(
    likelihood=Moments(mean=-0.8, sd=0.4, count=100),
    image_similarity=None,
    likelihood_kind="mean_logprob",
    likelihood_scope="first",
    evidence={"pmi": Moments(mean=0.4, sd=0.2, count=300)},
    evidence_inputs={"pmi": {"content_free": "none"}},
)


class BlindSampler(SpeakingSampler):
    """Gives every token the same log-probability where the image is away."""

    def __init__(self, value: float) -> None:
        super().__init__(babble)
        self.value = value
        self.asked: list[list[tuple[str, tuple[int, ...], bool]]] = []

    def score(
        self,
        prompts: Sequence[Prompt],
        token_ids: Sequence[Sequence[int]],
        *,
        with_image: bool = True,
    ) -> list[tuple[float, ...]]:
        rows = zip(prompts, token_ids, strict=True)
        self.asked.append([(p.prompt_id, tuple(ids), with_image) for p, ids in rows])
        return [(self.value,) * len(ids) for ids in token_ids]


def parts(pmi_value: float, likelihood: float = -0.8, is_sentence: bool = True) -> RawParts:
    return RawParts(
        likelihood=likelihood,
        image_similarity=None,
        redundancy=None,
        is_sentence=is_sentence,
        evidence={"pmi": pmi_value},
    )


def test_pmi_is_the_mean_difference_over_the_steps_own_tokens():
    first = make_step(" a.", [-9.0, -9.0, -9.0])
    step = make_step(" b.", [-0.5, -0.25, -1.0], token_ids=[7, 8, 9])
    group = StepGroup(prompt=make_prompt("p"), prefix=(first,), candidates=(step,))
    sampler = BlindSampler(-1.0)
    # (0.5 + 0.75 + 0) / 3; the prefix is read and not counted
    assert pmi([Step(group, step)], sampler) == pytest.approx([1.25 / 3])
    assert sampler.asked == [[("p", (*first.token_ids, 7, 8, 9), False)]]


def test_a_grey_image_can_stand_for_none_and_both_count_by_their_mean():
    class Grey(BlindSampler):
        def score(self, prompts, token_ids, *, with_image=True):
            value = self.value if with_image else -0.25
            assert [p.image.corruption for p in prompts] == ["blank" if with_image else None]
            return [(value,) * len(ids) for ids in token_ids]

    step = make_step(" b.", [-0.5, -0.5, -0.5])
    asked = [Step(StepGroup(prompt=make_prompt(), prefix=(), candidates=(step,)), step)]
    values = {kind: pmi(asked, Grey(-2.0), kind) for kind in ("none", "blank", "both")}
    assert values == {"none": [-0.25], "blank": [1.5], "both": [0.625]}


def test_a_policy_that_does_not_look_has_no_pmi():
    """The scripted policy's own values, image-free, make the difference exactly zero."""
    speaker = scripted.build(scripted.Config())
    speaker.load_policy(POLICY)
    ids = scripted.encode(" A red circle is at the top left.")
    [blind] = speaker.score([make_prompt()], [ids], with_image=False)
    step = make_step(" A red circle is at the top left.", blind, token_ids=ids)
    group = StepGroup(prompt=make_prompt(), prefix=(), candidates=(step,))
    assert pmi([Step(group, step)], speaker) == [0.0]
    [seeing] = speaker.score([make_prompt()], [ids])
    said = make_step(step.text, seeing, token_ids=ids)
    assert pmi([Step(group, said)], speaker) == pytest.approx(
        [(math.fsum(seeing) - math.fsum(blind)) / len(ids)]
    )


def test_the_reward_by_hand():
    # PMI (0.5 - 0.4) / 0.2 + 0.5 = 1 -> 1; likelihood (-0.6 + 0.8) / 0.4 = 0.5
    # R = 0.6 x 1 + 0.4 x 0.5 = 0.8
    (score,) = calibrate([parts(0.5, -0.6)], STATISTICS, Config(**WEIGHTS))
    assert score.reward == pytest.approx(0.8)
    assert score.breakdown == pytest.approx(
        {"likelihood": -0.6, "likelihood_calibrated": 0.5, "pmi": 0.5, "pmi_calibrated": 1.0}
    )
    # (-0.2 - 0.4) / 0.2 + 0.5 = -2.5 -> -2; R = 0.6 x -2 + 0.4 x 0
    (score,) = calibrate([parts(-0.2)], STATISTICS, Config(**WEIGHTS))
    assert score.reward == pytest.approx(-1.2)


def test_beside_the_image_part_each_has_its_share():
    statistics = STATISTICS.model_copy(
        update={"image_similarity": Moments(mean=30.0, sd=10.0, count=300)}
    )
    raw = RawParts(
        likelihood=-0.8, image_similarity=34.0, redundancy=0.0, is_sentence=True,
        evidence={"pmi": 0.4},
    )  # fmt: skip
    # image 0.9, PMI 0.5, likelihood 0
    (score,) = calibrate([raw], statistics, Config(image_weight=0.5, pmi_weight=0.3))
    assert score.reward == pytest.approx(0.5 * 0.9 + 0.3 * 0.5)


@pytest.mark.parametrize(
    ("calibration", "rewards"),
    [
        ("literal", [0.6 * 0.5 + 0.4 * -0.8, 0.6 * 0.1 + 0.4 * -0.8, 0.4 * -0.8]),
        ("sibling_rank", [-(0.6 * 1 + 0.4 * 1) / 2, -(0.6 * 2 + 0.4 * 1) / 2, 0.0]),
    ],
)
def test_the_other_calibrations(calibration, rewards):
    siblings = [parts(0.5), parts(0.1), parts(0.0, is_sentence=False)]
    config = Config(calibration=calibration, **WEIGHTS)
    assert [s.reward for s in calibrate(siblings, None, config)] == pytest.approx(rewards)


def test_all_of_a_level_is_asked_in_one_call_and_a_bare_end_not_at_all():
    steps = (make_step(" a."), make_step(" b."), eos_step())
    groups = [StepGroup(prompt=make_prompt(p), prefix=(), candidates=steps) for p in "xy"]
    sampler = BlindSampler(-0.75)
    scores = build(Config(**WEIGHTS), None, STATISTICS, sampler).score(groups)
    assert [len(call) for call in sampler.asked] == [4]
    assert [s.breakdown["pmi"] for s in scores[1]] == pytest.approx([0.25, 0.25, 0.0])
    assert scores[0][2].reward == 0.0


def test_without_weight_nothing_is_asked_and_nothing_stored():
    sampler = BlindSampler(-0.75)
    group = StepGroup(prompt=make_prompt(), prefix=(), candidates=(make_step(" a."),))
    config = Config(image_weight=0.0)
    ((score,),) = build(config, None, STATISTICS, sampler).score([group])
    assert sampler.asked == []
    assert set(score.breakdown) == {"likelihood", "likelihood_calibrated"}


def test_a_value_that_is_not_finite_names_the_prompt():
    group = StepGroup(prompt=make_prompt("p7"), prefix=(), candidates=(make_step(" a."),))
    scorer = build(Config(**WEIGHTS), None, STATISTICS, BlindSampler(-math.inf))
    with pytest.raises(NumericalError, match=r"The pmi of .*'p7'"):
        scorer.score([group])


def test_statistics_are_over_all_sentences_and_no_bare_end():
    caption = [parts(0.2, -0.5), parts(0.6, -0.7), parts(9.0, is_sentence=False)]
    other = [parts(0.2, -0.9), parts(0.6, -0.7)]
    found = measure_statistics([caption, other] * 4, likelihood_kind="mean_logprob")
    assert found.evidence["pmi"].model_dump() == pytest.approx(
        {"mean": 0.4, "sd": 0.2, "count": 16}
    )


def test_a_stored_tree_is_rewarded_anew_from_its_breakdown():
    tree = make_tree({"0": 0.0, "1": 0.0, "0.0/": 0.0})
    steps = [node.step for node in tree.nodes]
    groups = [
        StepGroup(prompt=tree.prompt, prefix=(), candidates=tuple(steps[:2])),
        StepGroup(prompt=tree.prompt, prefix=(steps[0],), candidates=(steps[2],)),
    ]
    before = Config(image_weight=0.0, pmi_weight=0.2)
    scores = flat(build(before, None, STATISTICS, BlindSampler(-0.9)).score(groups))
    nodes = tuple(
        replace(node, score=score) for node, score in zip(tree.nodes, scores, strict=True)
    )
    after = recalibrate(replace(tree, nodes=nodes), STATISTICS, Config(**WEIGHTS))
    expected = flat(build(Config(**WEIGHTS), None, STATISTICS, BlindSampler(-0.9)).score(groups))
    assert [node.score for node in after.nodes] == expected
    with pytest.raises(ConfigError, match="scored without it"):
        recalibrate(tree, STATISTICS, Config(**WEIGHTS))


def flat(scores: list[list[StepScore]]) -> list[StepScore]:
    return [score for group in scores for score in group]


def test_what_cannot_work_is_said():
    with pytest.raises(ValidationError, match=r"image_weight 0\.9 \+ pmi_weight 0\.5 is more"):
        Config(pmi_weight=0.5)
    assert Config(image_weight=0.6, pmi_weight=0.4).likelihood_weight == pytest.approx(0.0)
    with pytest.raises(ConfigError, match=r"as measured by .*'none'.* asks for .*'blank'"):
        build(Config(**WEIGHTS, pmi_content_free="blank"), None, STATISTICS, BlindSampler(-1.0))
    unmeasured = STATISTICS.model_copy(update={"evidence": {}})
    with pytest.raises(ConfigError, match="rerun from measure"):
        build(Config(**WEIGHTS), None, unmeasured, BlindSampler(-1.0))


def test_a_whole_run_by_pmi_alone_and_its_pairs_anew(
    csr: Csr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No similarity; the new pairs come from what is stored, without an engine."""
    settings = {"image_weight": 0.0, "pmi_weight": 0.7}
    recipe = write_recipe(tmp_path / "data", reward=settings, similarity=None)
    home = ("--home", tmp_path / "home")
    assert csr("run", recipe, "--run-id", "mine", *home).status == 0
    attempt = RunStore(tmp_path / "home").attempt("mine", 1)
    nodes = read_table(attempt.nodes, "nodes").to_pylist()
    found = [{p["name"]: p["value"] for p in row["breakdown"]} for row in nodes]
    assert len({p["pmi"] for p in found}) > 10
    ends = [p for p, node in zip(found, nodes, strict=True) if not node["text"]]
    assert {p["pmi"] for p in ends} == {p["pmi_calibrated"] for p in ends} == {0.0}
    assert "pmi_mean" in attempt.manifest.read().stage("measure").metrics

    def no_engine(*args: object) -> None:
        raise AssertionError("an engine was started")

    for maker in ("sampler", "similarity"):
        monkeypatch.setattr(f"flows.engines.Engines.{maker}", no_engine)
    again = ("rerun", "mine/01", "--from", "pair", "--until", "pair", *home)
    for setting, changes in (("reward.pmi_weight=0.7", False), ("reward.pmi_weight=0.1", True)):
        assert csr(*again, "--set", setting).status == 0
        number = 3 if changes else 2
        told = csr("diff", "mine/01.1", f"mine/01.{number}", "--json", *home).json()
        assert told["tables"]["responses"]["equal"] is not changes
