"""What benchmarks share that ask for one greedy response a prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from csr.types import LabelQuery, Prompt


class Limited(Protocol):
    """Settings that say where a response is cut."""

    max_response_tokens: int


@dataclass
class GreedyBenchmark(ABC):
    """Asks its questions alone, and for no label's probability."""

    config: Limited

    @property
    def max_response_tokens(self) -> int:
        """Tokens that a response may have."""
        return self.config.max_response_tokens

    @property
    def describe_first(self) -> str | None:
        """None: nothing is asked before."""
        return None

    def prompts(self) -> Sequence[Prompt]:
        """What is asked, in a fixed order."""
        return self._prompts

    def label_queries(self) -> Sequence[LabelQuery]:
        """None: answers are read from texts."""
        return ()

    @property
    @abstractmethod
    def _prompts(self) -> list[Prompt]:
        """What is asked; made once."""


@dataclass
class SelectiveBenchmark(GreedyBenchmark):
    """Can be held to some of its prompts, as where a file answers only those."""

    _kept: frozenset[str] | None = field(default=None, init=False)
    """IDs of the prompts that are asked; None is all."""

    SELECTED: ClassVar[tuple[str, ...]] = ("_records", "_prompts")
    """Cached properties that `_kept` decides."""

    @abstractmethod
    def prompt_ids(self) -> Sequence[str]:
        """The prompts' ids; no image is looked at."""

    def keep(self, prompt_ids: Collection[str]) -> None:
        """Ask these prompts alone."""
        self._kept = frozenset(prompt_ids)
        for name in self.SELECTED:
            self.__dict__.pop(name, None)
