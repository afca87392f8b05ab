import json
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from rich.console import Console

from csr.errors import ConfigError, DataError
from flows.compare import RunMetrics, Spread, compare_runs
from flows.comparison_views import cell, to_json, to_markdown, to_rich
from flows.matched_recall import chair_s_at
from flows.metric_names import METRICS
from flows.pareto import pareto_chart, pareto_svg, spread_apart


def figures(chair_s: float, recall: float, sentences: float) -> dict[str, float]:
    return {"chair_s": chair_s, "recall": recall, "mean_response_sentences": sentences}


BASE = figures(0.4, 0.9, 3.0)


def run(label: str, seed: int, *iterations: dict[str, float]) -> RunMetrics:
    return RunMetrics(label=label, seed=seed, base=BASE, iterations=numbered(*iterations))


def numbered(*iterations: dict[str, float]) -> dict[int, dict[str, float]]:
    return dict(enumerate(iterations, 1))


CSR = [
    run("csr", 1, figures(0.3, 0.9, 3.0), figures(0.1, 0.89, 2.7)),
    run("csr", 2, figures(0.2, 0.9, 3.0), figures(0.2, 0.91, 3.0)),
]
RANDOM = [
    run("random", 1, figures(0.4, 0.9, 3.0), figures(0.4, 0.9, 3.0)),
    run("random", 2, figures(0.4, 0.9, 3.0), figures(0.25, 0.9, 3.0)),
]


def test_rows_are_means_and_ranges_over_seeds() -> None:
    table = compare_runs(CSR)
    assert [(row.label, row.iteration, row.seeds) for row in table.rows] == [
        ("base", 0, (1, 2)),
        ("csr", 1, (1, 2)),
        ("csr", 2, (1, 2)),
    ]
    spread = table.rows[2].metrics["chair_s"]
    assert spread.mean == pytest.approx(0.15)
    assert (spread.min, spread.max, spread.count) == (0.1, 0.2, 2)
    assert table.columns == ("chair_s", "recall", "mean_response_sentences")


def test_labels_with_their_own_bases_have_their_own_base_rows() -> None:
    other = RunMetrics(label="other", seed=1, base=figures(0.5, 0.9, 3.0), iterations={})
    rows = compare_runs([*CSR, other]).rows
    bases = [(row.label, row.metrics["chair_s"].mean) for row in rows if row.iteration == 0]
    assert bases == [("csr", 0.4), ("other", 0.5)]


def test_a_seed_that_has_not_come_so_far_is_left_out_of_the_row() -> None:
    table = compare_runs([CSR[0], run("csr", 2, figures(0.2, 0.9, 3.0))])
    assert [row.seeds for row in table.rows if row.label == "csr"] == [(1, 2), (1,)]
    assert table.verdicts[0].iteration == 1  # the last that both have


def test_verdict_against_the_base_of_each_seed() -> None:
    (verdict,) = compare_runs(CSR).verdicts
    assert (verdict.label, verdict.against, verdict.iteration) == ("csr", "base", 2)
    # seed 1: .1/.4 - 1 = -.75; seed 2: .2/.4 - 1 = -.5
    assert verdict.chair_s_change is not None
    assert verdict.chair_s_change.mean == pytest.approx(-0.625)
    assert verdict.chair_s_change.min == pytest.approx(-0.75)
    assert verdict.recall_change is not None
    assert verdict.recall_change.mean == pytest.approx(0.0)
    assert verdict.length_change is not None
    assert verdict.length_change.mean == pytest.approx(-0.05)  # -10 % and 0
    assert verdict.cautions == ()
    assert verdict.text == (
        "csr, iteration 2, against base: chair_s -62.5% (-75.0 to -50.0), "
        "recall +0.0 points (-1.0 to +1.0), length -5.0% (-10.0 to +0.0)."
    )


def test_verdict_against_the_control_pairs_seeds() -> None:
    verdict = compare_runs([*CSR, *RANDOM], control="random").verdicts[-1]
    assert (verdict.label, verdict.against) == ("csr", "random")
    # seed 1: .1/.4 - 1 = -.75; seed 2: .2/.25 - 1 = -.2
    assert verdict.chair_s_change is not None
    assert verdict.chair_s_change.mean == pytest.approx(-0.475)
    assert verdict.chair_s_change.max == pytest.approx(-0.2)


def test_verdict_against_a_control_of_other_seeds_uses_means() -> None:
    control = [run("random", 7, BASE, figures(0.3, 0.9, 3.0))]
    verdict = compare_runs([*CSR, *control], control="random").verdicts[-1]
    assert verdict.chair_s_change is not None
    assert verdict.chair_s_change.count == 1
    assert verdict.chair_s_change.mean == pytest.approx(0.15 / 0.3 - 1)


def test_silence_is_pointed_out() -> None:
    (verdict,) = compare_runs([run("silent", 1, figures(0.1, 0.7, 2.2))]).verdicts
    assert len(verdict.cautions) == 2
    assert "Caution: recall fell by more than 3 points" in verdict.text
    assert "Caution: the length changed by more than 10%" in verdict.text


def test_a_slight_change_is_not() -> None:
    (verdict,) = compare_runs([run("csr", 1, figures(0.1, 0.871, 2.8))]).verdicts
    assert verdict.cautions == ()


def test_a_base_without_hallucination_has_no_relative_change() -> None:
    perfect = RunMetrics(
        label="csr", seed=1, base=figures(0.0, 1.0, 3.0), iterations={1: figures(0.1, 1.0, 3.0)}
    )
    (verdict,) = compare_runs([perfect]).verdicts
    assert verdict.chair_s_change is None
    assert verdict.text == ("csr, iteration 1, against base: recall +0.0 points, length +0.0%.")


def test_data_without_ground_truth_compares_lengths() -> None:
    tokens = RunMetrics(
        label="own",
        seed=1,
        base={"mean_response_tokens": 50.0},
        iterations={1: {"mean_response_tokens": 40.0, "distinct_2": 0.5}},
    )
    table = compare_runs([tokens])
    assert table.columns == ("mean_response_tokens", "distinct_2")
    assert table.verdicts[0].text.startswith("own, iteration 1, against base: length -20.0%.")
    assert "| base | 0 | 1 | 50.000 | – |" in to_markdown(table)


def test_an_iteration_without_figures_keeps_the_numbers_of_the_others() -> None:
    """Iterations 1 and 2 were not evaluated; the control has figures of 2 and 3."""
    late = RunMetrics(label="late", seed=1, base=BASE, iterations={3: figures(0.1, 0.9, 3.0)})
    control = RunMetrics(
        label="random",
        seed=1,
        base=BASE,
        iterations={2: figures(0.3, 0.9, 3.0), 3: figures(0.2, 0.9, 3.0)},
    )
    comparison = compare_runs([late, control], control="random")
    rows = [(row.label, row.iteration) for row in comparison.rows]
    assert rows == [("base", 0), ("late", 3), ("random", 2), ("random", 3)]
    told = [verdict.text.partition(", recall")[0] for verdict in comparison.verdicts]
    assert told == [
        "late, iteration 3, against base: chair_s -75.0%",
        "random, iteration 3, against base: chair_s -50.0%",
        "late, iteration 3, against random: chair_s -50.0%",  # .1/.2 - 1
    ]


def test_seeds_without_a_common_iteration_have_no_verdict() -> None:
    one, other = (
        RunMetrics(label="csr", seed=seed, base=BASE, iterations={seed: BASE}) for seed in (1, 2)
    )
    assert compare_runs([one, other]).verdicts == ()


def test_figures_of_other_benchmarks_are_compared_where_there_is_no_chair() -> None:
    base = {"amber_chair": 0.1, "amber_f1": 0.8, "multiple_choice_accuracy": 0.5}
    now = {"amber_chair": 0.07, "amber_f1": 0.81, "multiple_choice_accuracy": 0.5}
    other = RunMetrics(label="own", seed=1, base=base, iterations={1: now})
    comparison = compare_runs([other])
    assert comparison.columns == ("amber_chair", "amber_f1", "multiple_choice_accuracy")
    assert comparison.verdicts[0].text == (
        "own, iteration 1, against base: amber_chair -3.0 points, amber_f1 +1.0 points, "
        "multiple_choice_accuracy +0.0 points."
    )


def test_every_known_figure_has_a_column() -> None:
    names = {metric.name: 0.5 for group in METRICS.values() for metric in group}
    comparison = compare_runs([RunMetrics(label="a", seed=1, base=names, iterations={})])
    assert set(comparison.columns) == names.keys()


def test_runs_without_iterations_have_no_verdict() -> None:
    assert compare_runs([run("csr", 1)]).verdicts == ()


@pytest.mark.parametrize(
    ("runs", "control", "message"),
    [
        ([], None, "at least one run"),
        ([CSR[0], CSR[0]], None, "'csr' and have seed 1"),
        (CSR, "random", "no run of the control 'random'. Labels: csr"),
    ],
)
def test_mistakes_are_explained(runs: list[RunMetrics], control: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compare_runs(runs, control=control)


def test_cells() -> None:
    assert cell(None) == "–"
    assert cell(Spread(mean=0.25, min=0.25, max=0.25, count=3)) == "0.250"
    assert cell(Spread(mean=0.182, min=0.15, max=0.2279, count=3)) == "0.182 (0.150-0.228)"


def test_markdown() -> None:
    runs = [run("a|b", 1, figures(0.2, 0.9, 3.0))]
    assert to_markdown(compare_runs(runs)) == (
        "| configuration | iteration | seeds | chair_s | recall | mean_response_sentences |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| base | 0 | 1 | 0.400 | 0.900 | 3.000 |\n"
        "| a\\|b | 1 | 1 | 0.200 | 0.900 | 3.000 |\n"
        "\n"
        "- a|b, iteration 1, against base: chair_s -50.0%, recall +0.0 points, length +0.0%.\n"
        "\n"
        "| lowest chair_s with | recall at most 1 points lower | recall at most 2 points lower |"
        " recall at most 3 points lower |\n"
        "| --- | --- | --- | --- |\n"
        "| a\\|b | 0.200 | 0.200 | 0.200 |\n"
    )


def test_json_is_plain_and_carries_the_verdicts() -> None:
    document = json.loads(json.dumps(to_json(compare_runs(CSR))))
    assert document["rows"][0]["metrics"]["chair_s"] == {
        "mean": 0.4,
        "min": 0.4,
        "max": 0.4,
        "count": 2,
    }
    assert document["verdicts"][0]["iteration"] == 2
    assert document["verdicts"][0]["text"].startswith("csr, iteration 2")


def test_rich_table_shows_every_cell_and_takes_labels_literally() -> None:
    console = Console(width=200, record=True, file=None)
    with console.capture() as capture:
        console.print(to_rich(compare_runs([run("[red]x", 1, figures(0.2, 0.9, 3.0))])))
    shown = capture.get()
    assert "[red]x" in shown
    for text in ("chair_s", "0.400", "0.200", "-50.0%", "recall at most 3 points lower"):
        assert text in shown


@pytest.mark.parametrize("width", [60, 80, 120])
def test_figures_are_whole_in_a_narrow_terminal(width: int) -> None:
    wide = {metric.name: 0.8125 for group in METRICS.values() for metric in group}
    runs = [
        RunMetrics(label="csr", seed=seed, base=wide, iterations={1: {**wide, "recall": seed / 3}})
        for seed in (1, 2)
    ]
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(to_rich(compare_runs(runs)))
    shown = capture.get()
    assert "…" not in shown
    for name in wide:
        [row, *_] = [line for line in shown.splitlines() if line.startswith(f"│ {name} ")]
        assert "0.812" in row
    assert "0.500 (0.333-0.667)" in shown


def test_chair_is_held_against_the_recall_it_costs() -> None:
    """From (.90, .4) over (.88, .2) to (.84, .1): at most two points down is .2; three, midway."""
    points = [figures(0.2, 0.88, 3.0), figures(0.1, 0.84, 2.0)]
    assert chair_s_at(BASE, points, 0.01) == pytest.approx(0.3)
    assert chair_s_at(BASE, points, 0.02) == pytest.approx(0.2)
    assert chair_s_at(BASE, points, 0.03) == pytest.approx(0.175)
    assert chair_s_at(BASE, [{"recall": 0.9}], 0.02) is None


def test_matched_recall_is_told_for_each_configuration() -> None:
    comparison = compare_runs(CSR + RANDOM)
    assert [row.label for row in comparison.matched] == ["csr", "random"]
    assert comparison.matched[0].at[0.02] == Spread(
        mean=pytest.approx(0.15), min=0.1, max=0.2, count=2
    )
    assert "| csr | 0.150 (0.100-0.200) |" in to_markdown(comparison)


def test_what_was_spent_is_told_in_whole_numbers() -> None:
    spread = Spread(mean=12345.6, min=1000.0, max=20000.0, count=2)
    assert cell(spread) == "12,346 (1,000-20,000)"


def test_the_plot_draws_each_configuration_from_the_base_on() -> None:
    chart = pareto_chart(compare_runs(CSR + RANDOM))
    assert chart is not None
    assert [line.label for line in chart.series] == ["csr", "random"]
    base, first, last = chart.series[0].points  # recall .90, .90, .90; chair_s .40, .25, .15
    assert base[1] < first[1] < last[1]  # y points down
    assert chart.series[1].points[0] == base
    picture = ElementTree.fromstring(pareto_svg(compare_runs(CSR + RANDOM)))
    names = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert names[-2:] == ["csr", "random"]
    assert {"CHAIR_s (lower is better)", "recall (higher is better)"} <= set(names)


def test_the_plot_has_room_for_every_name() -> None:
    labels = [f"a configuration with a long name that tells what differs, {n}" for n in range(40)]
    measured = {"recall": 0.9, "chair_s": 0.25}
    runs = [
        RunMetrics(label=label, seed=1, base=measured, iterations={1: measured}) for label in labels
    ]
    picture = ElementTree.fromstring(pareto_svg(compare_runs(runs)))
    _, top, width, height = map(float, picture.attrib["viewBox"].split())
    texts = list(picture.iter("{http://www.w3.org/2000/svg}text"))
    names = [text for text in texts if (text.text or "").startswith("a configuration")]
    assert sorted(text.text or "" for text in names) == sorted(labels)
    for text in names:  # letters of 7 units, half as wide as high at least
        assert float(text.attrib["x"]) + 3.5 * len(text.text or "") < width
    places = sorted(float(text.attrib["y"]) for text in names)
    assert top < places[0]
    assert places[-1] < top + height
    assert min(after - before for before, after in pairwise(places)) >= 9


@pytest.mark.parametrize(
    ("places", "apart"),
    [
        ([10, 50], [10, 50]),
        ([50, 10, 10], [50, 10, 19]),
        ([52, 50, 159, 160], [59, 50, 151, 160]),
        ([], []),
    ],
)
def test_names_beside_the_plot_do_not_cover_each_other(
    places: list[float], apart: list[float]
) -> None:
    assert spread_apart(places, distance=9, largest=160) == apart


def test_there_is_no_plot_without_both_figures() -> None:
    alone = RunMetrics(label="a", seed=1, base={"recall": 0.9}, iterations={1: {"recall": 0.9}})
    with pytest.raises(DataError, match="nothing to plot"):
        pareto_svg(compare_runs([alone]))
