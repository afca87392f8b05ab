import pytest

from flows.charts import (
    BOTTOM,
    LEFT,
    MAX_POINTS,
    NUM_BINS,
    RIGHT,
    TOP,
    Series,
    bin_counts,
    bin_edges,
    histogram,
    line_chart,
)
from flows.ticks import nice_ticks, tick_text, tick_texts


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 0.29, [0, 0.1, 0.2]),
        (-1.2, 2.1, [-1, 0, 1, 2]),
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_round_and_within(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_whole_ticks_never_name_half_an_iteration() -> None:
    assert nice_ticks(0, 3, whole=True) == [0, 1, 2, 3]
    assert nice_ticks(0, 16, whole=True) == [0, 5, 10, 15]


def test_covering_ticks_enclose_the_data() -> None:
    assert nice_ticks(0, 0.97, cover=True) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert nice_ticks(-1.2, 2.1, cover=True) == [-2, -1, 0, 1, 2, 3]
    assert nice_ticks(0.3, 0.3, cover=True) == pytest.approx([0, 0.3, 0.6])
    assert nice_ticks(-2.0, -2.0, cover=True) == [-4.0, -2.0, 0.0]
    assert nice_ticks(0.0, 0.0, cover=True) == [-0.5, 0.0, 0.5]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.05, "0.05"),
        (1e-17, "0"),
        (1500.4, "1500"),
        (0.30000000000000004, "0.3"),
        (123456.7, "123457"),
        (9999.6, "9999.6"),
        (1.234e-06, "1.234e-06"),
    ],
)
def test_tick_text(value: float, text: str) -> None:
    assert tick_text(value) == text


def test_a_line_spans_the_plot_and_up_is_more() -> None:
    chart = line_chart("Loss", [Series(label="", points=[(0, 0.0), (2, 1.0)])], x_label="step")
    assert chart is not None
    ((x0, y0), (x1, y1)) = chart.series[0].points
    assert LEFT < x0 < x1 < RIGHT
    assert (y0, y1) == (BOTTOM, TOP)
    assert [tick.text for tick in chart.x_ticks] == ["0", "1", "2"]
    assert chart.summary == "Loss. from 0 to 1."


def test_from_zero_keeps_a_small_change_small() -> None:
    points = [(0, 0.90), (1, 0.91)]
    zoomed = line_chart("a", [Series(label="", points=points)], x_label="")
    honest = line_chart("a", [Series(label="", points=points)], x_label="", from_zero=True)
    assert zoomed is not None
    assert honest is not None
    assert zoomed.series[0].points[0][1] - zoomed.series[0].points[1][1] > 100
    assert honest.series[0].points[0][1] - honest.series[0].points[1][1] < 3
    assert honest.y_ticks[0].text == "0"


def test_nothing_but_zeros_lies_on_the_axis() -> None:
    points = [(0.0, 0.0), (1.0, 0.0)]
    chart = line_chart("a", [Series(label="", points=points)], x_label="", from_zero=True)
    assert chart is not None
    assert [y for _, y in chart.series[0].points] == [BOTTOM, BOTTOM]
    assert chart.y_ticks[0].text == "0"


def test_error_bars_stay_inside_the_plot() -> None:
    series = Series(label="", points=[(0, 0.01), (1, 0.5)], intervals=[(-0.09, 0.11), None])
    chart = line_chart("a", [series], x_label="", from_zero=True)
    assert chart is not None
    x = chart.series[0].points[0][0]
    assert chart.series[0].error_path.startswith(f"M{x} {BOTTOM}V")
    assert chart.series[0].error_path.count("M") == 1  # no interval, no bar
    assert chart.series[0].band_path == ""


def test_points_that_are_not_finite_are_left_out() -> None:
    nan, inf = float("nan"), float("inf")
    series = Series(label="", points=[(0, 1.0), (1, nan), (2, inf), (3, 2.0)])
    chart = line_chart("a", [series], x_label="")
    assert chart is not None
    assert len(chart.series[0].points) == 2
    assert line_chart("a", [Series(label="", points=[(0, nan)])], x_label="") is None
    assert line_chart("a", [], x_label="") is None


def test_long_lines_are_thinned_and_keep_both_ends() -> None:
    series = Series(label="", points=[(float(i), float(i)) for i in range(1000)])
    chart = line_chart("a", [series], x_label="")
    assert chart is not None
    drawn = chart.series[0].points
    assert MAX_POINTS / 2 < len(drawn) <= MAX_POINTS + 1
    assert chart.summary == "a. from 0 to 999."


def test_bins_count_every_value_once() -> None:
    counts = bin_counts([0.0, 0.01, 0.5, 1.0], 0.0, 1.0, 24)
    assert sum(counts) == 4
    assert counts[0] == 2
    assert counts[12] == 1
    assert counts[-1] == 1  # the upper edge belongs to the last bin


def test_whole_numbers_have_bins_around_whole_numbers() -> None:
    assert bin_edges([2, 3, 6]) == (1.5, 6.5, 5)
    assert bin_edges([0, 47]) == (-0.5, 47.5, 24)
    assert bin_edges([0, 49]) == (-0.5, 50.5, 17)  # three numbers a bin
    assert bin_edges([0.0, 0.5]) == (0.0, 0.5, NUM_BINS)
    assert bin_edges([0.25, 0.25]) == (0.0, 0.5, NUM_BINS)
    assert bin_edges([1e-6, 1e-6]) == (0.0, 2e-6, NUM_BINS)


def test_histogram_groups_share_their_bins_and_name_their_means() -> None:
    chart = histogram("Reward", [("chosen", [1.5, 4.5]), ("rejected", [0.5, float("nan")])])
    assert chart is not None
    assert [each.label for each in chart.series] == ["chosen", "rejected"]
    assert chart.series[0].mean_at == pytest.approx(LEFT + 2.5 / 4 * (RIGHT - LEFT), abs=0.1)
    assert chart.series[1].mean_at == LEFT
    assert chart.summary == "Reward. chosen: mean 3, 2 values. rejected: mean 0.5, 1 values."


def test_a_histogram_of_one_value_and_of_none() -> None:
    chart = histogram("Reward", [("chosen", [3.0, 3.0])])
    assert chart is not None
    assert chart.series[0].mean_at == (LEFT + RIGHT) / 2
    assert histogram("Reward", [("chosen", []), ("rejected", [])]) is None


def test_intervals_make_a_band_and_stand_in_the_table() -> None:
    points, nan = [(0, 0.5), (1, 0.25)], float("nan")
    series = Series(label="", points=points, intervals=[(0.25, 1.0), (0.0, 0.5)])
    chart = line_chart("Share", [series], x_label="iteration", from_zero=True)
    assert chart is not None
    [line] = chart.series
    (x0, _), (x1, _) = line.points
    middle = (TOP + BOTTOM) / 2
    assert line.band_path == (
        f"M{x0} {float(TOP)}L{x1} {middle}L{x1} {float(BOTTOM)}L{x0} {(middle + BOTTOM) / 2}Z"
    )
    assert chart.columns == ("iteration", "value")
    assert chart.rows == (("0", "0.5 [0.25, 1]"), ("1", "0.25 [0, 0.5]"))
    one = Series(label="one", points=points, intervals=[(0.25, 1.0), (nan, 0.5)])
    two = Series(label="two", points=[(1, 0.5), (2, nan)])
    chart = line_chart("Share", [one, two], x_label="step")
    assert chart is not None
    assert [line.band_path for line in chart.series] == ["", ""]
    assert chart.columns == ("step", "one", "two")
    assert chart.rows == (("0", "0.5 [0.25, 1]", "–"), ("1", "0.25", "0.5"))


def test_a_long_table_holds_every_so_many_rows() -> None:
    long = Series(label="", points=[(n, 1.0) for n in range(100)])
    chart = line_chart("Loss", [long], x_label="step")
    assert chart is not None
    assert [row[0] for row in chart.rows] == [str(n) for n in (*range(0, 100, 5), 99)]
    bars = histogram("Length", [("chosen", [1, 2, 2]), ("rejected", [3])])
    assert bars is not None
    assert bars.columns == ("from", "to", "chosen", "rejected")
    assert bars.rows == (
        ("0.5", "1.5", "1", "0"), ("1.5", "2.5", "2", "0"), ("2.5", "3.5", "0", "1"),
    )  # fmt: skip


def test_small_ticks_have_few_digits() -> None:
    assert [tick_text(x) for x in (0.00015, 0.0002, 5e-05, -0.00015)] == [
        "1.5e-04", "2e-04", "5e-05", "-1.5e-04",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1e-6, 1e-6], ["0", "1e-06", "2e-06"]),
        ([0.69315, 0.69314, 0.69310], [f"0.6931{n}" if n else "0.6931" for n in range(6)]),
        ([100000, 100001], ["100000", "100000.2", "100000.4", "100000.6", "100000.8", "100001"]),
        ([1.0002, 1.0004], ["1.0002", "1.00025", "1.0003", "1.00035", "1.0004"]),
    ],
)
def test_no_two_ticks_read_the_same(values: list[float], texts: list[str]) -> None:
    points = [(float(n), value) for n, value in enumerate(values)]
    chart = line_chart("loss", [Series(label="", points=points)], x_label="step")
    assert chart is not None
    assert [tick.text for tick in chart.y_ticks] == texts
    told = [row[1] for row in chart.rows]
    assert len(set(told)) == len(set(values))


def test_long_counts_stay_apart() -> None:
    assert tick_texts([100000.0, 100001.0]) == ["100000", "100001"]
    assert tick_texts([3.0]) == ["3"]
    bars = histogram("loss", [("chosen", [0.69310, 0.69315])])
    assert bars is not None
    assert len({row[0] for row in bars.rows}) == NUM_BINS
