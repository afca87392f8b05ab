"""Which parts there are, what they need, and how they share the time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_ENGINE = ("vllm", "transformers")
OVERRUN = 1.5
"""A process may take this many times its parts' shares before it is stopped: what starts late,
such as an engine, must not be cut for a few seconds."""
WRAP_UP_SECONDS = 10.0
"""Kept of the budget for ending processes and writing the last figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of `benchmarks/gpu/parts`, of the same name."""

    name: str
    seconds: float
    """An estimate for llava-1.5-7b on one H100 or H200, start included; decides its share."""
    process: str
    """Parts of one process run one after another in it, and share what they started."""
    packages: tuple[str, ...] = ()
    """Modules that must be importable."""
    uses_policy: bool = False
    """Whether the checkpoint must be built first."""


CHECKPOINT = Part(name="checkpoint", seconds=70, process="torch", packages=("transformers",))
"""Not a measurement: what others measure with."""

PARTS = (
    Part(name="ceilings", seconds=10, process="torch"),
    Part(name="clip", seconds=50, process="torch", packages=("open_clip",)),
    Part(name="decode", seconds=140, process="engine", packages=_ENGINE, uses_policy=True),
    Part(name="prefill", seconds=50, process="engine", packages=_ENGINE, uses_policy=True),
    Part(name="cache", seconds=50, process="engine", packages=_ENGINE, uses_policy=True),
    Part(name="reload", seconds=50, process="engine", packages=_ENGINE, uses_policy=True),
    Part(name="lora", seconds=110, process="lora", packages=_ENGINE, uses_policy=True),
    Part(name="waves", seconds=180, process="waves", packages=_ENGINE, uses_policy=True),
    Part(
        name="dpo", seconds=150, process="trainer",
        packages=("trl", "peft", "accelerate", "datasets", "pyarrow"), uses_policy=True,
    ),
)  # fmt: skip
"""In the order in which they run. No process starts two engines: a GPU may not get back all
memory of one that was stopped."""

DERIVED = ("memory", "plan")
"""Made of the others' figures, without a process of their own."""

NAMES = (*(part.name for part in PARTS), *DERIVED)
_BY_NAME = {part.name: part for part in (CHECKPOINT, *PARTS)}


@dataclass(slots=True)
class Clock:
    """How long a part may still take, and what it left out for lack of time."""

    ends_at: float
    """By `time.monotonic`, which all processes of a machine share."""
    left_out: list[str] = field(default_factory=list)

    def left(self) -> float:
        """Seconds, negative when the time is over."""
        return self.ends_at - time.monotonic()

    def allows(self, seconds: float, what: str) -> bool:
        """Whether something that takes about `seconds` still fits; notes `what` where not."""
        if self.left() >= seconds:
            return True
        self.left_out.append(what)
        return False


def part(name: str) -> Part:
    """The part of that name."""
    return _BY_NAME[name]


def measured_parts(names: Iterable[str]) -> list[Part]:
    """The parts to run for these names, in their order, with the checkpoint where one needs it."""
    wanted = set(names)
    if "lora" in wanted:
        wanted.add("reload")  # an adapter is compared with merged weights
    parts = [each for each in PARTS if each.name in wanted]
    return [CHECKPOINT, *parts] if any(each.uses_policy for each in parts) else parts


def processes(parts: Sequence[Part]) -> list[list[Part]]:
    """The parts by process, in order."""
    found: dict[str, list[Part]] = {}
    for each in parts:
        found.setdefault(each.process, []).append(each)
    return list(found.values())


def share_seconds(now: Part, still_to_come: Sequence[Part], seconds_left: float) -> float:
    """What `now` may take of the time left, by what each part is expected to need.

    Time that an earlier part did not use has become everyone's.
    """
    total = now.seconds + sum(each.seconds for each in still_to_come)
    return max(seconds_left, 0.0) * now.seconds / total


def limit_seconds(these: Sequence[Part], later: Sequence[Part], seconds_left: float) -> float:
    """After how long a process that runs `these` is stopped, whatever it does."""
    wanted = sum(each.seconds for each in these)
    total = wanted + sum(each.seconds for each in later)
    return max(seconds_left, 0.0) * min(1.0, OVERRUN * wanted / total)


def missing_packages(
    parts: Iterable[Part], is_installed: Iterable[str] | None = None
) -> dict[str, list[str]]:
    """Module that cannot be imported -> the parts that need it."""
    from importlib.util import find_spec

    known = None if is_installed is None else set(is_installed)
    missing: dict[str, list[str]] = {}
    for each in parts:
        for name in each.packages:
            if (find_spec(name) is None) if known is None else name not in known:
                missing.setdefault(name, []).append(each.name)
    return missing
