"""Work in waves: every item once, in order, and one progress over all."""

import pytest

from csr.waves import in_waves, wave_size


@pytest.mark.parametrize(
    ("num_items", "num_waves", "sizes"),
    [
        (5, 1, [5]),
        (5, 2, [3, 2]),
        (4, 2, [2, 2]),
        (1, 2, [1]),
        (5, 4, [2, 2, 1]),
        (0, 2, []),
    ],
)
def test_parts_follow_each_other(num_items: int, num_waves: int, sizes: list[int]) -> None:
    items = list(range(num_items))
    parts = [part for part, _ in in_waves(items, num_waves, lambda done, total: None)]
    assert [len(part) for part in parts] == sizes
    assert [item for part in parts for item in part] == items


def test_progress_counts_over_all_waves() -> None:
    seen: list[tuple[int, int]] = []
    for part, progress in in_waves("abcde", 2, lambda *counts: seen.append(counts)):
        progress(1, len(part))
        progress(len(part), len(part))
    assert seen == [(1, 5), (3, 5), (4, 5), (5, 5)]


def test_a_wave_is_never_empty() -> None:
    assert [wave_size(n, 2) for n in (0, 1, 2, 5, 128)] == [1, 1, 1, 3, 64]
