"""What a person may ask for: the parameters of the flows, and so the forms of the flow UI."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from flows.stage_names import StageName

Settings = tuple[str, ...]

DATE_MARK = "{date}"


def home_of(home: str | None) -> Path:
    """The folder that holds all runs, where `home` may be left empty."""
    return Path(home or os.environ.get("CSR_HOME") or "runs")


# Said in so many words: Prefect's form loses a docstring that several classes share.
_HOME: Any = Field(
    default=None,
    description="Folder that holds all runs; empty means CSR_HOME where the flow runs.",
)


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @property
    def home_path(self) -> Path:
        """The home as a path."""
        return home_of(getattr(self, "home", None))


class RunRequest(_Request):
    """Start a run, or go on with it: the same request finds the same run."""

    recipe: str = Field(examples=["recipes/tiny.yaml"])
    """Recipe file, as seen from where the flow runs."""
    settings: Settings = Field(default=(), examples=[["reward.image_weight=0.5"]])
    """Overrides of the recipe, each as `a.b=value`."""
    run_id: str | None = Field(default=None, examples=["nightly-{date}"])
    """Name of the run; empty means the recipe's name and digest. `{date}` stands for the day
    for which the flow was scheduled, so that each night is a run of its own."""
    home: str | None = _HOME

    def dated(self, scheduled_for: datetime) -> RunRequest:
        """The same request with `{date}` filled in."""
        if self.run_id is None:
            return self
        run_id = self.run_id.replace(DATE_MARK, scheduled_for.strftime("%Y-%m-%d"))
        return self.model_copy(update={"run_id": run_id})


class IterationRequest(_Request):
    """Do one iteration over: a new attempt from the same inputs, which overwrites nothing."""

    iteration_id: str = Field(examples=["tiny-b0f2/02"])
    """RUN/NN, or RUN/NN.A to do over one certain attempt."""
    settings: Settings = Field(default=(), examples=[["reward.image_weight=0.5"]])
    """Overrides of that attempt's configuration, each as `a.b=value`."""
    from_stage: StageName | None = None
    """First stage to do over; what the earlier ones made is taken as it is."""
    until_stage: StageName | None = None
    """Last stage to do; empty means all."""
    attempt: Literal["new", "current"] = "new"
    """`new`: beside the attempts that there are; `current`: the run's own attempt, gone on with
    where it is unfinished, as the run itself does."""
    home: str | None = _HOME


class EvaluateRequest(_Request):
    """Ask a policy the benchmarks' questions."""

    target: str = Field(examples=["tiny-b0f2/02", "/models/llava-1.5-7b-hf"])
    """An iteration, whose policy is asked; or a model's directory or hub id."""
    recipe: str | None = None
    """Recipe whose benchmarks are asked; a model needs one, an iteration has its run's."""
    settings: Settings = ()
    """Overrides of the recipe, each as `a.b=value`."""
    home: str | None = _HOME
