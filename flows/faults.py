"""Tells all that is wrong with a run's inputs at once, each fault with its setting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from csr.config import ComponentConfig, locations
from csr.errors import CSRError


class Faults:
    """What was found wrong so far; true where there is anything."""

    def __init__(self) -> None:
        self._found: list[CSRError] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    @contextmanager
    def noted(self, section: str, settings: ComponentConfig) -> Iterator[None]:
        """Keep a CSRError that is raised inside, which then begins with its setting, such as
        `data.prompts: `.
        """
        try:
            yield
        except CSRError as error:
            error.args = (f"{_place(section, settings, str(error))}: {error}",)
            self._found.append(error)

    def raise_all(self) -> None:
        """One CSRError with each text once, where there is any."""
        if self._found:
            first, *_ = self._found
            first.args = ("\n".join(dict.fromkeys(map(str, self._found))),)
            raise first


def _place(section: str, settings: ComponentConfig, message: str) -> str:
    """The setting whose file, folder or name stands in the message; else the section alone."""
    named = [
        (len(value), name)
        for name, value in locations(settings).items()
        if re.search(rf"(?<![\w/.-]){re.escape(value)}(?![\w-])", message)
    ]
    return f"{section}.{max(named)[1]}" if named else section
