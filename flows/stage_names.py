"""The stages' names, and the engine of each. Light: the command line imports it first of all."""

from __future__ import annotations

from typing import Literal

StageName = Literal["measure", "sample", "review", "pair", "train", "evaluate", "gate"]
"""In the order in which they run."""

ENGINES = {
    "measure": "sampler",
    "sample": "sampler",
    "train": "trainer",
    "evaluate": "sampler",
    "gate": "sampler",
}
"""Stage -> the engine that it needs memory for. Other stages need none."""
