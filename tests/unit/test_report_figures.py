"""The figures of a report: how they are written, and how far they may be off."""

import pytest

from flows.report_data import ReportData, ReportIteration
from flows.report_figures import format_change, format_figure, interval_95, metric_groups


def test_intervals_are_those_of_the_evaluation_or_of_the_standard_error() -> None:
    assert interval_95({"recall": 0.5, "recall_se": 0.1}, "recall") == pytest.approx(
        (0.304, 0.696), abs=5e-4
    )
    measured = {"recall": 0.5, "recall_se": 0.1, "recall_ci_low": 0.25, "recall_ci_high": 0.625}
    assert interval_95(measured, "recall") == (0.25, 0.625)
    assert interval_95({"recall": 0.5}, "recall") is None
    assert interval_95({}, "recall") is None


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (0.0625, "recall", "0.062"),
        (12856.0, "num_captions", "12,856"),
        (600.0, "pope_num_prompts", "600"),
        (16.0, "likelihood_count", "16"),
        (0.00002, "learning_rate", "2.00e-05"),
        (0.0, "recall", "0.000"),
        (float("nan"), "loss", "–"),
        (None, "recall", "–"),
    ],
)
def test_figures(value: float | None, name: str, text: str) -> None:
    assert format_figure(value, name) == text


def test_changes() -> None:
    assert format_change([0.3, None, 0.1]) == "-0.200"
    assert format_change([0.3]) == "–"
    assert format_change([None, 0.1]) == "–"
    assert format_change([400.0, 1404.0], "num_captions") == "+1,004"
    assert format_change([4.0, 4.0], "num_captions") == "+0"


def test_changes_go_to_the_last_iteration_that_is_evaluated() -> None:
    measured: list[dict[str, float]] = [{"recall": 0.5, "chair_s": 0.3}, {"recall": 0.75}, {}]
    iterations = [
        ReportIteration(iteration=n, attempt="", status="", metrics=metrics)
        for n, metrics in enumerate(measured)
    ]
    data = ReportData(
        run_id="", recipe="", status="", seed=0, iterations=iterations, config={}
    )  # fmt: skip
    [(_, rows)] = metric_groups(data)
    assert {row["metric"].name: row["change"] for row in rows} == {
        "chair_s": "–",
        "recall": "+0.250",
    }
