"""The tables of docs/results.md, from runs made up here."""

from __future__ import annotations

from pathlib import Path

from benchmarks.method_tables import DATA, load, merged, save, tables
from flows.compare import RunMetrics, compare_runs


def run(label: str, seed: int, *chair_s: float) -> RunMetrics:
    base = {"chair_s": 0.3, "recall": 0.99, "mean_response_sentences": 2.9}
    spent = {"spent_seconds": 61.7, "spent_human_verdicts": 0.0, "spent_prompt_tokens": 12345.0}
    return RunMetrics(
        label=label,
        seed=seed,
        base=base,
        iterations={n: {**base, **spent, "chair_s": value} for n, value in enumerate(chair_s, 1)},
    )


RUNS = [run("csr", 1, 0.2, 0.1234567), run("csr", 2, 0.1, 0.05), run("random", 1, 0.3, 0.3)]


def test_figures_are_kept_and_read_again(tmp_path: Path) -> None:
    save(RUNS, tmp_path / "some" / "methods.json")
    again = load(tmp_path / "some" / "methods.json")
    assert [each.iterations[2]["chair_s"] for each in again] == [0.12346, 0.05, 0.3]
    assert again[1:] == RUNS[1:]


def test_what_is_measured_again_replaces_what_was_measured_before() -> None:
    again = run("random", 1, 0.4, 0.4)
    assert merged(RUNS, [again, run("csr", 3, 0.2, 0.2)]) == [
        *RUNS[:2],
        run("csr", 3, 0.2, 0.2),
        again,
    ]


def test_every_table_says_how_many_runs_stand_behind_a_mean_and_how_far_apart_they_are() -> None:
    quality, first, matched, spent = tables(compare_runs(RUNS, control="random")).split("\n\n")
    assert "| base | 2 | .300 | – | .990 | 2.90 |" in quality
    assert "| csr | 2 | .087 (.050–.123) | – | .990 | 2.90 |" in quality
    assert "| csr | 2 | .150 (.100–.200) | .990 | 2.90 |" in first
    assert "| csr | .087 (.050–.123) |" in matched
    assert "| csr | 2 | 62 | – | 12,345 | – | 0 |" in spent


def test_what_is_published_is_complete() -> None:
    runs = load(DATA)
    for label in {each.label for each in runs}:
        seeds = sorted(each.seed for each in runs if each.label == label)
        assert seeds == [11, 12, 13, 21, 22, 23], label
