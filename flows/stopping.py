"""When a run has come to its end before its last iteration: nothing more is gained."""

from __future__ import annotations

from pydantic import Field

from csr.config import ComponentConfig
from csr.errors import ConfigError
from storage.run_store import RunStore


class Config(ComponentConfig):
    """What must rise for the run to go on."""

    metric: str
    """Name of a benchmark's figure, such as `rationale_rouge_l`; more must be better."""
    patience: int = Field(default=2, ge=1)
    """Iterations in a row without a gain after which the run ends. (ILLUME repeats until its
    scores stop rising, section 3.4, and gives no number.)"""
    min_gain: float = Field(default=0.0, ge=0)
    """What the best so far must be passed by."""


def gains_nothing(values: list[float], rule: Config) -> bool:
    """Whether none of the last `patience` values passed the best one before them.

    `values` begin with the base model's.
    """
    if len(values) <= rule.patience:
        return False
    best = max(values[: -rule.patience])
    return max(values[-rule.patience :]) <= best + rule.min_gain


def is_over(store: RunStore, run_id: str, iteration: int, rule: Config | None) -> bool:
    """Whether the run ends behind this iteration, which is done; one that is held counts too.

    ConfigError where no benchmark gives the figure.
    """
    if rule is None:
        return False
    metrics = [store.attempt(run_id, n).manifest.read().metrics for n in range(iteration + 1)]
    if rule.metric not in metrics[0]:
        raise ConfigError(
            f"stop.metric is {rule.metric!r}, which no benchmark of the recipe gives. There are: "
            f"{', '.join(sorted(metrics[0])) or 'none'}."
        )
    return gains_nothing([figures[rule.metric] for figures in metrics], rule)


def last_iteration(store: RunStore, run_id: str, num_iterations: int, rule: Config | None) -> int:
    """The run's last iteration: the first that ends it, as far as can be told now."""
    done = [n for n in store.iterations(run_id) if n < num_iterations]
    for iteration in done:
        if store.attempt(run_id, iteration).manifest.read().metrics and is_over(
            store, run_id, iteration, rule
        ):
            return iteration
    return num_iterations
