"""Whether this machine has the tracker that a recipe names."""

from __future__ import annotations

import importlib.util

from csr.errors import EnvironmentFault
from flows.choices import TrackerChoice
from flows.versions import requirement_of_extra


def check_tracker(choice: TrackerChoice) -> None:
    """EnvironmentFault where its package is missing, or its own check fails."""
    needed: str = choice.module.REQUIRES
    if importlib.util.find_spec(needed) is None:
        raise EnvironmentFault(
            f"The tracker {choice.name!r} needs the package {needed!r}, which is not installed: "
            f'pip install "{requirement_of_extra(choice.name) or needed}". Or leave `tracker` out '
            "of the recipe; csr track shows the run to a tracker later."
        )
    check = getattr(choice.module, "check", None)
    if check is not None:
        check(choice.settings)
