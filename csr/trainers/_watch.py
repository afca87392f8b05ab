"""Sees every batch and every step of a training: its history, its progress, its failures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from csr.errors import NumericalError

if TYPE_CHECKING:
    from csr.protocols import Progress

_OUR_NAMES = {
    "rewards/margins": "margin",
    "rewards/accuracies": "reward_accuracy",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "logps/chosen": "chosen_logprob",
    "logps/rejected": "rejected_logprob",
}
"""TRL's name of a figure -> ours, of those that an objective has. A reward here is beta times a
log-ratio, in nats."""
_KEPT_NAMES = (
    "loss", "grad_norm", "learning_rate", "epoch", "entropy", "negative_logprob",
    "text_loss", "image_loss", "flipped_token_share",
    "conditional_loss", "conditional_margin", "anchor_loss",
)  # fmt: skip
"""Those after `entropy` are of some objectives or terms alone."""


@dataclass
class TrainingWatch:
    """Sees every batch and every step; stops the run at the first number that is not finite."""

    names: Sequence[str]
    """What messages call each row of the data."""
    num_updates: int
    """Rows that will pass in all: the reference's pass and the epochs."""
    progress: Progress
    num_processes: int = 1
    """Each of which sees its share of the rows."""
    history: list[dict[str, float]] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)
    _seen: int = 0
    _step_rows: list[int] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Time spent on this training, with what came before its checkpoint."""
        return time.monotonic() - self._started

    def state(self) -> dict[str, Any]:
        """What `restore` needs, after a step."""
        return {"history": self.history, "num_seen": self._seen, "seconds": self.seconds}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where the watch that gave `state` stood."""
        self.history[:] = state["history"]
        self._seen, self._started = state["num_seen"], time.monotonic() - state["seconds"]
        self.progress(self._seen, self.num_updates)

    def reference(self, rows: Sequence[int], logprobs: Sequence[Sequence[float]]) -> None:
        """A batch of the reference policy's log-probabilities is known, several a pair."""
        broken = [row for row, found in zip(rows, logprobs, strict=True) if not _finite(found)]
        if broken:
            raise NumericalError(
                f"The reference policy gives no finite log-probability for {self._names(broken)}. "
                "Its weights hold NaN or infinity, or overflow in this dtype: look at the policy's "
                "checkpoint, or train in float32."
            )
        self._advance(len(rows))

    def batch(self, step: int, rows: Sequence[int], loss: float) -> None:
        """A loss was computed in optimiser step `step` (from 1)."""
        self._step_rows += rows
        if not math.isfinite(loss):
            raise NumericalError(
                f"The loss is {loss} in step {step} on {self._names(rows)}. Training stopped "
                "and nothing was saved. Lower the learning rate, or train in float32."
            )
        self._advance(len(rows))

    def step(self, step: int, logs: dict[str, float]) -> None:
        """An optimiser step is done and TRL reports on it."""
        if not math.isfinite(logs["grad_norm"]):
            raise NumericalError(
                f"The gradient norm is {logs['grad_norm']} in step {step} on "
                f"{self._names(self._step_rows)}. Training stopped and nothing was saved. Lower "
                "the learning rate, or train in float32."
            )
        row = {"step": float(step)}
        row |= {name: float(logs[name]) for name in _KEPT_NAMES if name in logs}
        row |= {ours: float(logs[theirs]) for theirs, ours in _OUR_NAMES.items() if theirs in logs}
        self.history.append(row)
        self._step_rows = []

    def _advance(self, num_rows: int) -> None:
        self._seen = min(self._seen + num_rows * self.num_processes, self.num_updates)
        self.progress(self._seen, self.num_updates)

    def _names(self, rows: Sequence[int]) -> str:
        names = [self.names[row] for row in rows]
        rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return f"{', '.join(names[:8])}{rest}"


class Watched:
    """Goes before a trainer of TRL's among a class's bases: it reports to its watch, and to nobody
    else.
    """

    watch: TrainingWatch
    state: Any

    def _send_telemetry(self) -> None:
        pass

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's own, then the watch's."""
        super().log(logs, start_time)  # type: ignore[misc]  # adds the step's figures to `logs`
        if "loss" in logs:
            self.watch.step(self.state.global_step, logs)


def at_train_begin(do: Callable[[], None]) -> Any:
    """A callback for transformers' Trainer that does it once the model is where it trains."""
    from transformers import TrainerCallback

    class AtTrainBegin(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            do()

    return AtTrainBegin()


def _finite(values: Sequence[float]) -> bool:
    return all(math.isfinite(value) for value in values)
