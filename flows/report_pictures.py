"""The pictures of a run's report: small copies whose size together stays within a budget."""

from __future__ import annotations

from collections.abc import Iterator

from flows.report_data import ReportData
from flows.thumbnails import thumbnail_uri

MAX_CHARACTERS = 3_000_000
"""Of all pictures together; each has its share of it."""
MIN_CHARACTERS = 16_000
"""Of one: enough for a photograph of 112 pixels, however much is in it."""


class Pictures:
    """Looks pictures up by path, each decoded once."""

    def __init__(self, data: ReportData) -> None:
        num_shown = sum(1 for _ in _shown(data))
        self._share = max(MAX_CHARACTERS // max(num_shown, 1), MIN_CHARACTERS)
        self._found: dict[str, tuple[str, str]] = {}

    def of(self, path: str) -> tuple[str, str]:
        """The picture as a `data:` URI and "", or "" and why it cannot be shown."""
        if path not in self._found:
            self._found[path] = thumbnail_uri(path, self._share)
        return self._found[path]


def _shown(data: ReportData) -> Iterator[str]:
    """The path of every picture, as often as it stands on the page."""
    for iteration in data.iterations:
        yield from (each.image_path for each in iteration.examples)
        yield from (each.image_path for each in iteration.trees)
        yield from (each.image_path for each in iteration.demonstrations)
    for comparison in data.comparisons:
        for case in comparison.cases:
            yield case.image_path
