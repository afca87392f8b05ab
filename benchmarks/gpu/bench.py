"""What a part is given: the size, the models, the inputs, the time, and a place for figures."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.gpu.budget import Clock
from benchmarks.gpu.checkpoint import Models
from benchmarks.gpu.inputs import Inputs
from benchmarks.gpu.record import Json
from benchmarks.gpu.shapes import Size
from benchmarks.gpu.timing import Timed, in_turns, synchroniser

if TYPE_CHECKING:
    from benchmarks.gpu.engine import Engine


@dataclass(slots=True)
class Bench:
    """One process's parts share it; `clock` and `keep` are each part's own."""

    size: Size
    device: str
    models: Models
    work: Path
    clock: Clock
    keep: Callable[[Json], None]
    """Stores what a part has measured so far: nothing is lost if it is stopped."""
    inputs: Inputs = field(init=False)
    _engine: Engine | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.inputs = Inputs(self.work / "images", self.size.load)

    @property
    def value_bytes(self) -> int:
        """Of one weight."""
        return 2 if self.device == "cuda" else 4

    def in_turns(
        self, arms: Mapping[str, Callable[[], object]], what: str, *, warm_up: bool = True
    ) -> dict[str, list[Timed]]:
        """`timing.in_turns` with this size's rounds, this part's clock and this device."""
        return in_turns(
            arms,
            rounds=self.size.load.rounds,
            clock=self.clock,
            synchronise=synchroniser(self.device),
            what=what,
            warm_up=warm_up,
        )

    def engine(self) -> Engine:
        """The engine that this process's parts share, started by the first that asks."""
        from benchmarks.gpu.engine import start

        if self._engine is None:
            self._engine = start(
                self,
                kv_cache_gib=self.size.load.kv_cache_gib,
                max_num_seqs=self.size.load.max_num_seqs,
            )
        return self._engine

    def close(self) -> None:
        """Stop the shared engine, if it runs."""
        if self._engine is not None:
            engine, self._engine = self._engine, None
            engine.close()


def free_memory(device: str) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
