"""What an iteration does otherwise than the recipe says for all: `per_iteration` in a recipe.

Methods of two stages need it: POVID brings its image term in late, STIC goes on to another
objective on other data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIXED = (
    "name", "seed", "num_iterations", "stop", "world", "policy", "per_iteration", "tracker",
)  # fmt: skip
"""Settings of the run as a whole."""


def merged(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`document` with `changes` in it: mappings are merged, and all else is replaced.

    A mapping that names a component replaces the one before it whole, since another component has
    other settings.
    """
    result = dict(document)
    for key, value in changes.items():
        before = result.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping) and "name" not in value:
            result[key] = merged(before, value)
        else:
            result[key] = value
    return result


def refuse_fixed(per_iteration: Mapping[int, Mapping[str, Any]], num_iterations: int) -> None:
    """ValueError for an iteration that the run has not, or a setting that is the whole run's."""
    for iteration, changes in per_iteration.items():
        if not 1 <= iteration <= num_iterations:
            raise ValueError(
                f"per_iteration names iteration {iteration}, and the run has iterations 1 to "
                f"{num_iterations}. Raise num_iterations, or leave it out."
            )
        if fixed := sorted(set(changes) & set(FIXED)):
            raise ValueError(
                f"per_iteration.{iteration} sets {fixed[0]!r}, which is the whole run's. Set it "
                "outside."
            )
