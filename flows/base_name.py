"""How a run's iteration 0 is called where people read of it."""

from __future__ import annotations

import re
from pathlib import Path

from csr.protocols import Json
from storage.attempt import IterationId

_TRAINED = re.compile(
    r"/(?P<run>[^/]+)/iterations/(?P<iteration>\d+)/attempts/(?P<attempt>\d+)/policy/model$"
)
"""Where an attempt's policy lies."""


def base_name(config: Json) -> str:
    """How a run's iteration 0 is called: "base", or by its policy where that is all there is.

    That policy is an attempt, such as `tiny-b0f2/02.1`, or a model: its folder or its hub id.
    """
    if config["num_iterations"] > 0:
        return "base"
    model = str(config["policy"]["model"])
    if trained := _TRAINED.search(model):
        return str(IterationId(trained["run"], int(trained["iteration"]), int(trained["attempt"])))
    return Path(model).name if Path(model).is_absolute() else model
