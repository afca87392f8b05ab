"""The figures of a report: how they are written, and how far they may be off."""

import pytest

from flows.report_figures import format_change, format_figure, interval_95


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
