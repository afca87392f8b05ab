"""Each gate trips on its own kind of collapse, and none on a healthy iteration."""

import math
from dataclasses import replace
from typing import Any

import pytest

from csr.gates import Config, Evidence, judge

# Figures of a real run on the embedded world (400 held-out images): base and first iteration.
BASE = {
    "chair_s": 0.32, "chair_s_se": 0.0233, "recall": 0.992, "recall_se": 0.0035,
    "mean_response_sentences": 2.94, "mean_response_tokens": 27.46, "distinct_2": 0.007,
    "repetition": 0.0, "repeated_4gram_share": 0.046, "empty_share": 0.0, "truncated_share": 0.0,
}  # fmt: skip
FIRST = {
    "chair_s": 0.102, "chair_s_se": 0.0151, "recall": 0.985, "recall_se": 0.0045,
    "mean_response_sentences": 2.703, "mean_response_tokens": 25.32, "distinct_2": 0.008,
    "repetition": 0.0, "repeated_4gram_share": 0.040, "empty_share": 0.0, "truncated_share": 0.0,
}  # fmt: skip
PAIRS = {
    "mean_margin": 2.4, "mean_chosen_reward": 3.31, "mean_rejected_reward": 0.91,
    "mean_chosen_tokens": 26.79, "mean_rejected_tokens": 31.37, "equal_share": 0.0,
    "mean_response_reward": 2.1,
}  # fmt: skip
HEALTHY = Evidence(
    base=BASE, before=BASE, now=FIRST, pairs=PAIRS,
    training={"loss": 0.576, "margin": 0.258}, kl_nats_per_token=0.05,
)  # fmt: skip
SECOND = replace(HEALTHY, two_before=BASE, before=FIRST, pairs_before=PAIRS)

GATES = [
    "finite", "recall_drop", "length_drift_sentences", "length_drift_tokens", "repetition_rise",
    "repeated_4gram_share_rise", "empty_share_rise", "truncated_share_rise", "distinct_2_drop",
    "hallucination_rise", "reward_hacking", "margin_share", "training_margin", "equal_share",
    "pair_length_difference", "kl_nats_per_token",
]  # fmt: skip


def tripped(evidence: Evidence) -> set[str]:
    return {verdict.gate for verdict in judge(evidence, Config()) if verdict.tripped}


def now(**figures: float) -> Evidence:
    return replace(HEALTHY, now=FIRST | figures)


def pairs(**figures: float) -> Evidence:
    return replace(HEALTHY, pairs=PAIRS | figures)


def test_a_healthy_iteration_trips_none() -> None:
    verdicts = judge(SECOND, Config())
    assert [verdict.gate for verdict in verdicts] == GATES
    assert tripped(HEALTHY) == tripped(SECOND) == set()
    assert all(verdict.value is not None for verdict in verdicts)
    assert all(verdict.message == "" for verdict in verdicts)


@pytest.mark.parametrize(
    ("evidence", "gate", "value"),
    [
        (now(recall=0.766), "recall_drop", 0.992 - 0.766),
        (now(mean_response_sentences=2.14), "length_drift_sentences", 0.8 / 2.94),
        (now(mean_response_tokens=40.59), "length_drift_tokens", 13.13 / 27.46),
        (now(repetition=0.407), "repetition_rise", 0.407),
        (now(repeated_4gram_share=0.208), "repeated_4gram_share_rise", 0.162),
        (now(empty_share=0.06), "empty_share_rise", 0.06),
        (now(truncated_share=0.2), "truncated_share_rise", 0.2),
        (now(distinct_2=0.004), "distinct_2_drop", 3 / 7),
        (now(chair_s=0.603, chair_s_se=0.0245), "hallucination_rise", 0.603 - 0.32),
        (pairs(mean_margin=0.05, mean_chosen_reward=2.27, mean_rejected_reward=2.23),
         "margin_share", 0.05 / 2.25),
        (replace(HEALTHY, training={"margin": 4.5}), "training_margin", 4.5),
        (pairs(equal_share=0.5), "equal_share", 0.5),
        (pairs(mean_chosen_tokens=9.74, mean_rejected_tokens=29.96),
         "pair_length_difference", 20.22 / 29.96),
        (replace(HEALTHY, kl_nats_per_token=2.0), "kl_nats_per_token", 2.0),
        (replace(HEALTHY, training={"loss": math.nan, "margin": 0.2}), "finite", 1.0),
        (
            replace(
                SECOND, before=FIRST | {"chair_s": 0.603, "chair_s_se": 0.0245},
                now=FIRST | {"chair_s": 0.61, "chair_s_se": 0.0245},
                pairs=PAIRS | {"mean_response_reward": 2.2},
            ),
            "reward_hacking", 0.603 - 0.32,
        ),
    ],
)  # fmt: skip
def test_each_collapse_trips_its_gate_alone(evidence: Evidence, gate: str, value: float) -> None:
    assert tripped(evidence) == {gate}
    verdict = next(each for each in judge(evidence, Config()) if each.gate == gate)
    assert verdict.value == pytest.approx(value)
    assert verdict.message


def test_every_gate_has_a_collapse_of_its_own() -> None:
    marks: Any = test_each_collapse_trips_its_gate_alone.pytestmark  # type: ignore[attr-defined]
    assert sorted(case[1] for case in marks[0].args[1]) == sorted(GATES)


def test_a_figure_that_is_no_number_trips_what_it_belongs_to() -> None:
    assert tripped(now(recall=math.nan)) == {"finite", "recall_drop"}
    assert tripped(replace(HEALTHY, kl_nats_per_token=math.inf)) == {"finite", "kl_nats_per_token"}
    assert tripped(pairs(mean_margin=-math.inf)) == {"finite", "margin_share"}


def test_each_limit_says_which_side_is_fine() -> None:
    floors = [each.gate for each in judge(HEALTHY, Config()) if each.bound != "at most"]
    assert floors == ["margin_share"]
    unmeasured = judge(replace(HEALTHY, pairs={}), Config())
    assert {each.gate: each.bound for each in unmeasured}["margin_share"] == "at least"


def test_chance_is_allowed_for() -> None:
    """Of twelve images, one more that is wrong is no harm; 3 hypot(.08, .11) = .41 would be."""
    before = BASE | {"chair_s": 0.08, "chair_s_se": 0.08}
    evidence = replace(HEALTHY, before=before, now=FIRST | {"chair_s": 0.17, "chair_s_se": 0.11})
    verdict = next(v for v in judge(evidence, Config()) if v.gate == "hallucination_rise")
    assert not verdict.tripped
    assert verdict.limit == pytest.approx(3 * math.hypot(0.08, 0.11))


def test_rewards_may_rise_and_captions_may_grow_wrong_but_not_both() -> None:
    worse = FIRST | {"chair_s": 0.603, "chair_s_se": 0.0245}
    sinking = replace(SECOND, before=worse, now=worse, pairs=PAIRS | {"mean_response_reward": 2.0})
    assert tripped(sinking) == set()
    better = replace(SECOND, pairs=PAIRS | {"mean_response_reward": 9.0})
    assert tripped(better) == set()


def test_what_was_not_measured_is_said_and_trips_nothing() -> None:
    verdicts = judge(Evidence(base={}, before={}, now={}), Config())
    assert {v.gate for v in verdicts if v.message != "not measured"} == {"finite"}
    assert not any(v.tripped for v in verdicts)


def test_a_gate_can_be_switched_off() -> None:
    names = [
        name for name, field in Config.model_fields.items() if name not in ("on_trip",)
        and field.default is not True
    ]  # fmt: skip
    off = Config(**dict.fromkeys(names), reward_hacking=False)
    broken = replace(SECOND, now=FIRST | {"recall": 0.1, "chair_s": 1.0})
    assert [verdict.gate for verdict in judge(broken, off)] == ["finite"]
    assert len(names) == 12


# Base and iterations 1 to 3 of stored runs on the embedded world: (chair_s, recall, sentences,
# tokens). CSR with its recipe; with λ = 0, which buys CHAIR with silence.
HEALTHY_RUNS = {
    11: [(0.320, 0.992, 2.940, 27.46), (0.102, 0.985, 2.703, 25.32), (0.062, 0.969, 2.620, 24.58),
         (0.030, 0.963, 2.572, 24.15)],
    12: [(0.320, 0.992, 2.940, 27.46), (0.095, 0.985, 2.695, 25.26), (0.048, 0.958, 2.578, 24.20),
         (0.045, 0.984, 2.643, 24.78)],
    21: [(0.325, 0.978, 2.910, 27.19), (0.133, 0.974, 2.710, 25.39), (0.085, 0.971, 2.652, 24.87),
         (0.075, 0.970, 2.640, 24.76)],
    22: [(0.325, 0.978, 2.910, 27.19), (0.158, 0.978, 2.748, 25.73), (0.107, 0.960, 2.655, 24.90),
         (0.080, 0.983, 2.688, 25.19)],
}  # fmt: skip
SILENT_RUNS = {
    11: [(0.320, 0.992, 2.940, 27.46), (0.160, 0.970, 2.720, 25.48), (0.117, 0.766, 2.140, 20.26),
         (0.010, 0.518, 1.377, 13.40)],
    21: [(0.325, 0.978, 2.910, 27.19), (0.138, 0.952, 2.650, 24.85), (0.113, 0.861, 2.385, 22.47),
         (0.065, 0.728, 1.988, 18.87)],
}  # fmt: skip


def judged(run: list[tuple[float, ...]]) -> list[set[str]]:
    names = ("chair_s", "recall", "mean_response_sentences", "mean_response_tokens")
    figures = [dict(zip(names, row, strict=True)) for row in run]
    figures = [
        f | {"chair_s_se": math.sqrt(f["chair_s"] * (1 - f["chair_s"]) / 400)} for f in figures
    ]
    return [
        tripped(Evidence(base=figures[0], before=figures[n - 1], now=figures[n])) for n in (1, 2, 3)
    ]


@pytest.mark.parametrize("seed", HEALTHY_RUNS)
def test_stored_healthy_runs_trip_none(seed: int) -> None:
    assert judged(HEALTHY_RUNS[seed]) == [set(), set(), set()]


@pytest.mark.parametrize("seed", SILENT_RUNS)
def test_stored_silent_runs_are_held_in_the_second_iteration(seed: int) -> None:
    first, second, third = judged(SILENT_RUNS[seed])
    assert first == set()
    assert "recall_drop" in second
    assert {"recall_drop", "length_drift_sentences", "length_drift_tokens"} <= third
