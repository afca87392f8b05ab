"""What a hostile input is made by, and what must become of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from csr.types import SkipReason


@dataclass(frozen=True)
class Refused:
    """One error that holds `words`; the command exits with status 2 and writes nothing."""

    words: str


@dataclass(frozen=True)
class Quarantined:
    """A bad record: an error that holds `words`, or, where asked, a row in the quarantine."""

    reason: SkipReason
    words: str


@dataclass(frozen=True)
class Fine:
    """Unusual, but read right; `expected` is what the test compares."""

    expected: Any = None


Verdict = Refused | Quarantined | Fine


@dataclass(frozen=True)
class Case:
    """One input: `build` makes it and returns what the test hands on."""

    name: str
    build: Callable[..., Any]
    verdict: Verdict


class Corpus:
    """A table of cases, filled by a decorator."""

    def __init__(self) -> None:
        self._cases: dict[str, Case] = {}

    def add(self, verdict: Verdict) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Enter a builder under its own name."""

        def enter(build: Callable[..., Any]) -> Callable[..., Any]:
            self.put(build.__name__, build, verdict)
            return build

        return enter

    def put(self, name: str, build: Callable[..., Any], verdict: Verdict) -> None:
        assert name not in self._cases, name
        self._cases[name] = Case(name, build, verdict)

    def put_all(self, values: Mapping[str, tuple[Any, Verdict]]) -> None:
        """Cases that are mere values."""
        for name, (value, verdict) in values.items():
            self.put(name, lambda value=value: value, verdict)

    def cases(self, *kinds: type[Verdict]) -> list[Case]:
        """Those with a verdict of one of the kinds, or all."""
        return [case for case in self._cases.values() if not kinds or type(case.verdict) in kinds]

    def __len__(self) -> int:
        return len(self._cases)
