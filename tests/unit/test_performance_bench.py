"""The arithmetic of `make bench`, and a page that never hides what was not measured."""

import json
from pathlib import Path

import pytest

from benchmarks.performance import __main__ as bench
from benchmarks.performance.measuring import Measured, compared, growth, in_turns, spread
from benchmarks.performance.report import markdown


def test_arms_run_in_turns_and_the_first_round_is_thrown_away() -> None:
    order: list[tuple[str, int]] = []

    def arm(name: str):
        def run(number: int) -> float:
            order.append((name, number))
            return 2.0

        return run

    found = in_turns({"a": arm("a"), "b": arm("b")}, rounds=2)
    assert order == [("b", 0), ("a", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 2)]
    assert [len(runs) for runs in found.values()] == [2, 2]
    assert found["a"][0].amount == 2.0


def test_ratios_are_taken_round_by_round() -> None:
    fast = [Measured(100, 1.0, 2.0), Measured(300, 1.0, 1.0)]
    slow = [Measured(10, 1.0, 1.0), Measured(20, 2.0, 2.0)]
    figures = compared({"fast": fast, "slow": slow}, "fast")
    assert figures["fast"]["per_cpu_second"]["median"] == 200
    assert figures["fast"]["per_second"] == {"median": 175, "low": 50, "high": 300, "rounds": 2}
    assert figures["slow"]["times_slower"] == {"median": 20, "low": 10, "high": 30, "rounds": 2}
    assert "times_slower" not in figures["fast"]


def test_growth_is_a_line_and_what_it_leaves() -> None:
    line = growth([1, 2, 3], [10, 12, 14])
    assert line == {"fixed": pytest.approx(8), "each": pytest.approx(2),
                    "largest_residual": pytest.approx(0, abs=1e-9)}  # fmt: skip
    bent = growth([0, 1, 2], [0, 3, 0])
    assert (bent["each"], bent["largest_residual"]) == (pytest.approx(0), pytest.approx(2))


def part(figures: object) -> dict[str, object]:
    hardware = {"num_cpus": 2, "machine": "x86_64", "memory_bytes": 24 * 2**30}
    return {
        "figures": figures, "measured_at": "2026-01-02", "hardware": hardware,
        "versions": {"torch": "2.13.0"},
    }  # fmt: skip


def test_the_page_says_which_part_was_not_measured() -> None:
    page = markdown({"parts": {}}, [])
    for name in bench.PARTS:
        assert f"Not measured yet: `python -m benchmarks.performance --parts {name}`." in page


def test_the_page_shows_medians_and_extremes() -> None:
    arm = {"per_cpu_second": spread([3.0, 1.0, 2.0]), "times_slower": spread([40.0, 50.0, 60.0])}
    size = {"batched": arm, "one_by_one": arm}
    figures = {"sentences_of_an_image": 35, "by_size": {"tiny": size}}
    page = markdown({"parts": {"scoring": part(figures)}}, [])
    assert "| tiny | 2 (1–3) | 2 (1–3) | 50.0 (40.0–60.0) | ≥ 20 |" in page
    assert "*2026-01-02, 2 x86_64 cores, 24 GiB; torch 2.13.0.*" in page
    assert page.count("Not measured yet") == len(bench.PARTS) - 1


def test_the_committed_page_is_that_of_the_committed_figures() -> None:
    docs = Path(bench.DOCS)
    assert docs.joinpath("performance.md").read_text() == markdown(
        json.loads(docs.joinpath("performance.json").read_text()), []
    )


def test_a_part_that_fails_is_named_and_the_others_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "_measured_apart", lambda name, options: name != "storage")
    folders = [f"--{name}={tmp_path / name}" for name in ("work", "figures", "page")]
    assert bench.main(folders) == 1
    assert "failed: storage" in capsys.readouterr().out
    assert (tmp_path / "page").read_text().startswith("# Performance")
