import math
from dataclasses import replace

import pytest

from csr.errors import ConfigError, NumericalError
from csr.types import StepGroup, StepScore
from rewards.calibrated import build, calibrate, recalibrate
from rewards.raw import RawParts, measure
from rewards.settings import REWARD_PRESETS, Config
from rewards.statistics import Moments, Statistics
from tests.trees import TableSimilarity, eos_step, make_prompt, make_step, make_tree

STATISTICS = Statistics(
    likelihood=Moments(mean=-0.8, sd=0.4, count=100),
    image_similarity=Moments(mean=30.0, sd=10.0, count=300),
    likelihood_kind="mean_logprob",
    likelihood_scope="first",
)
LITERAL = Config(calibration="literal", likelihood="product")
RANKS = Config(calibration="sibling_rank")


def raw(
    likelihood: float = -0.8,
    image: float | None = 30.0,
    redundancy: float | None = 0.0,
    is_sentence: bool = True,
) -> RawParts:
    return RawParts(
        likelihood=likelihood,
        image_similarity=image,
        redundancy=redundancy,
        is_sentence=is_sentence,
    )


SILENT = raw(likelihood=-3.0, image=0.0, is_sentence=False)


def rewards(parts: list[RawParts], config: Config) -> list[float]:
    statistics = STATISTICS if config.calibration == "centred" else None
    return [score.reward for score in calibrate(parts, statistics, config)]


# ---------------------------------------------------------------- centred


def test_centred_by_hand():
    # image: (34 - 30) / 10 + 0.5 = 0.9; likelihood: (-0.6 + 0.8) / 0.4 = 0.5
    # R = 0.9 x 0.9 + 0.1 x 0.5 = 0.86
    (score,) = calibrate([raw(-0.6, 34.0)], STATISTICS, Config())
    assert score.reward == pytest.approx(0.86)
    assert score.breakdown == pytest.approx(
        {
            "likelihood": -0.6,
            "image_similarity": 34.0,
            "redundancy": 0.0,
            "likelihood_calibrated": 0.5,
            "image_similarity_calibrated": 0.9,
        }
    )


def test_centred_clips_each_part():
    # image (95 - 30) / 10 + 0.5 = 7 -> 1, likelihood (-4 + 0.8) / 0.4 = -8 -> -2
    assert rewards([raw(-4.0, 95.0)], Config()) == pytest.approx([0.9 * 1 + 0.1 * -2])
    # image (-30 - 30) / 10 + 0.5 = -5.5 -> -2, likelihood (0 + 0.8) / 0.4 = 2 -> 1
    assert rewards([raw(0.0, -30.0)], Config()) == pytest.approx([0.9 * -2 + 0.1 * 1])


def test_a_usual_sentence_earns_the_weighted_offset():
    assert rewards([raw(-0.8, 30.0)], Config(offset=0.3)) == pytest.approx([0.27])


def test_centred_bare_end_is_worth_nothing_even_where_the_likelihood_is_high():
    assert rewards([SILENT, raw(0.0, 0.0, is_sentence=False)], Config()) == [0.0, 0.0]


def test_a_sentence_said_again_loses_what_it_earns_and_pays_a_penalty():
    # R would be 0.45; min(0.45, 0) - 0.25 = -0.25
    assert rewards([raw(redundancy=0.96)], Config()) == pytest.approx([-0.25])
    # a poor one keeps its own loss: 0.9 x -1.5 = -1.35, then - 0.25
    assert rewards([raw(image=10.0, redundancy=0.96)], Config()) == pytest.approx([-1.6])
    # at the threshold itself it is not redundant
    assert rewards([raw(redundancy=0.95)], Config()) == pytest.approx([0.45])


def test_other_calibrations_know_no_redundancy_penalty():
    for config in (LITERAL, RANKS):
        assert rewards([raw(redundancy=0.99)], config) == rewards([raw()], config)


# ---------------------------------------------------------------- literal


def test_literal_by_hand():
    # 0.9 x 27.5 + 0.1 x 0.2 = 24.77
    assert rewards([raw(0.2, 27.5)], LITERAL) == pytest.approx([24.77])


def test_literal_clamps_a_negative_similarity_unless_told_not_to():
    assert rewards([raw(0.2, -10.0)], LITERAL) == pytest.approx([0.02])
    unclamped = LITERAL.model_copy(update={"clamp_similarity_at_zero": False})
    assert rewards([raw(0.2, -10.0)], unclamped) == pytest.approx([-8.98])


def test_literal_sum_pays_for_a_hallucinated_sentence_and_centred_makes_it_cost():
    """Two true sentences (cosine .34), then one that is false but still alike (.18)."""
    true, false = raw(-0.7, 34.0), raw(-0.7, 18.0)
    product = [replace(true, likelihood=1e-4), replace(false, likelihood=1e-4)]
    for kept, longer in ([product[:1] * 2, [product[0], product[0], product[1]]],):
        assert sum(rewards(longer, LITERAL)) - sum(rewards(kept, LITERAL)) == pytest.approx(
            16.20001
        )
    gain = sum(rewards([true, true, false], Config())) - sum(rewards([true, true], Config()))
    # image (18 - 30) / 10 + 0.5 = -0.7, likelihood (-0.7 + 0.8) / 0.4 = 0.25
    assert gain == pytest.approx(0.9 * -0.7 + 0.1 * 0.25)
    assert gain < 0


def test_literal_likelihood_cannot_turn_an_order_that_the_image_decides():
    """A fifth of a CLIPScore point outweighs the whole range of the likelihood at 0.9."""
    certain_but_worse, impossible_but_better = raw(1.0, 27.0), raw(0.0, 27.2)
    worse, better = rewards([certain_but_worse, impossible_but_better], LITERAL)
    assert better > worse


# ---------------------------------------------------------------- sibling rank


def test_ranks_by_hand():
    """Position over number, best 1/3; R = -(0.9 rank_I + 0.1 rank_T)."""
    siblings = [raw(-0.5, 20.0), raw(-0.2, 30.0), raw(-0.9, 25.0)]
    # image ranks 3, 1, 2; likelihood ranks 2, 1, 3; over 3
    expected = [-(0.9 * 3 + 0.1 * 2) / 3, -(0.9 * 1 + 0.1 * 1) / 3, -(0.9 * 2 + 0.1 * 3) / 3]
    assert rewards(siblings, RANKS) == pytest.approx(expected)


def test_equal_siblings_share_the_better_rank():
    assert rewards([raw(), raw(), raw(-9.0, -9.0)], RANKS) == pytest.approx([-1 / 3, -1 / 3, -1.0])


def test_an_only_child_gets_the_worst_rank_however_good_it_is():
    assert rewards([raw(0.0, 99.0)], RANKS) == [-1.0]
    assert rewards([raw(0.0, 99.0), raw(-9.0, -9.0)], RANKS)[0] == -0.5


def test_a_bare_end_has_no_rank_and_changes_no_other():
    with_end = rewards([raw(-0.5, 20.0), SILENT, raw(-0.2, 30.0)], RANKS)
    without = rewards([raw(-0.5, 20.0), raw(-0.2, 30.0)], RANKS)
    assert with_end == pytest.approx([without[0], 0.0, without[1]])


# ---------------------------------------------------------------- weight, and what is missing


def test_without_image_weight_no_similarity_is_needed():
    statistics = STATISTICS.model_copy(update={"image_similarity": None})
    scorer = build(Config(image_weight=0.0), None, statistics)
    group = StepGroup(prompt=make_prompt(), prefix=(), candidates=(make_step("a.", [-0.6, -0.6]),))
    ((score,),) = scorer.score([group])
    assert score.reward == pytest.approx(0.5)
    assert score.breakdown == pytest.approx({"likelihood": -0.6, "likelihood_calibrated": 0.5})


def test_image_weight_zero_still_measures_where_it_can():
    similarity = TableSimilarity(image={"a.": 0.5})
    group = StepGroup(prompt=make_prompt(), prefix=(), candidates=(make_step("a.", [-0.6, -0.6]),))
    ((score,),) = build(Config(image_weight=0.0), similarity, STATISTICS).score([group])
    assert score.reward == pytest.approx(0.5)
    assert score.breakdown["image_similarity"] == 50.0


def test_what_is_missing_is_said():
    with pytest.raises(ConfigError, match="no similarity is configured"):
        build(Config(), None, STATISTICS)
    with pytest.raises(ConfigError, match="needs the statistics"):
        build(Config(), TableSimilarity(), None)
    with pytest.raises(ConfigError, match="'mean_logprob', the reward uses 'product'"):
        build(Config(likelihood="product"), TableSimilarity(), STATISTICS)
    no_image = STATISTICS.model_copy(update={"image_similarity": None})
    with pytest.raises(ConfigError, match="statistics hold no image"):
        build(Config(), TableSimilarity(), no_image)
    with pytest.raises(ConfigError, match="scored without an image similarity"):
        calibrate([raw(image=None)], None, LITERAL)
    with pytest.raises(ValueError, match="clip_low"):
        Config(clip_low=1.0)


# ---------------------------------------------------------------- measuring


def test_raw_parts_are_measured_in_one_call_each():
    first, again, other = make_step(" One."), make_step(" One again."), make_step(" Two.")
    similarity = TableSimilarity(
        image={"One.": 0.2, "One again.": 0.3, "Two.": -0.1},
        text={("One again.", "One."): 0.97, ("Two.", "One."): 0.1, ("Two.", "One again."): 0.4},
    )
    groups = [
        StepGroup(prompt=make_prompt("a"), prefix=(), candidates=(first, eos_step())),
        StepGroup(prompt=make_prompt("b"), prefix=(first,), candidates=(again, eos_step())),
        StepGroup(prompt=make_prompt("b"), prefix=(first, again), candidates=(other,)),
    ]
    parts = measure(groups, similarity, "mean_logprob")
    assert [[p.image_similarity for p in group] for group in parts] == [
        [20.0, 0.0], [30.0, 0.0], [-10.0],
    ]  # fmt: skip
    assert [[p.redundancy for p in group] for group in parts] == [[0.0, 0.0], [0.97, 0.0], [0.4]]
    assert [p.is_sentence for p in parts[1]] == [True, False]
    assert similarity.image_calls == [["One.", "One again.", "Two."]]
    assert similarity.text_calls == [
        [("One again.", "One."), ("Two.", "One."), ("Two.", "One again.")]
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_similarity_that_is_not_finite_stops_with_the_prompts_name(value):
    group = StepGroup(prompt=make_prompt("p7"), prefix=(), candidates=(make_step(" One."),))
    with pytest.raises(NumericalError, match="'p7'"):
        measure([group], TableSimilarity(image={"One.": value}), "mean_logprob")


# ---------------------------------------------------------------- rewarding anew


def test_recalibrating_a_stored_tree_equals_scoring_it_so_at_first():
    texts = {"0": " One.", "1": " Two.", "0.0": " Three."}
    similarity = TableSimilarity(image={"One.": 0.2, "Two.": 0.4, "Three.": 0.3})
    tree = make_tree(dict.fromkeys(["0", "1", "0.0", "0.0/"], 0.0), texts)

    def scored(config: Config, statistics: Statistics | None) -> list[StepScore]:
        by_id = {node.node_id: node for node in tree.nodes}
        first = StepGroup(
            prompt=tree.prompt,
            prefix=(),
            candidates=(by_id["42/0"].step, by_id["42/1"].step),
        )
        second = replace(first, prefix=first.candidates[:1], candidates=(by_id["42/0.0"].step,))
        third = replace(
            first,
            prefix=(first.candidates[0], by_id["42/0.0"].step),
            candidates=(by_id["42/0.0.9"].step,),
        )
        groups = build(config, similarity, statistics).score([first, second, third])
        return [score for group in groups for score in group]

    before = replace(
        tree,
        nodes=tuple(
            replace(node, score=score)
            for node, score in zip(tree.nodes, scored(Config(), STATISTICS), strict=True)
        ),
    )
    for config in (RANKS, LITERAL, Config(image_weight=0.4)):
        statistics = STATISTICS if config.calibration == "centred" else None
        after = recalibrate(before, statistics, config)
        assert [node.score for node in after.nodes] == scored(config, statistics)
        assert [node.cumulative_reward for node in after.nodes] == [0.0] * 4


def test_reward_presets():
    assert {name: (c.calibration, c.likelihood) for name, c in REWARD_PRESETS.items()} == {
        "default": ("centred", "mean_logprob"),
        "paper": ("literal", "product"),
        "released": ("sibling_rank", "mean_logprob"),
    }
    assert all(config.image_weight == 0.9 for config in REWARD_PRESETS.values())
