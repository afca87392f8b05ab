"""What every component's configuration has in common."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field

_LOCATION = "location"

Location = Annotated[str, _LOCATION]
"""A file or folder, or where the setting allows it the name of something elsewhere (a hub id).

One that exists on this machine is made absolute when a run starts, so that the run can be
resumed from anywhere, and is fingerprinted by its content, not by its place.
"""


Probability = Annotated[float, Field(ge=0, le=1)]


class ComponentConfig(BaseModel):
    """Frozen, and an unknown key is an error: a misspelt setting never goes unnoticed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def locations(settings: BaseModel) -> dict[str, str]:
    """Name -> value of the settings that are a `Location` and are given."""
    named = {
        name: getattr(settings, name)
        for name, field in type(settings).model_fields.items()
        if _is_location(field)
    }
    return {name: value for name, value in named.items() if value is not None}


def _is_location(field: Any) -> bool:
    """Whether a field is declared as `Location` or as `Location | None`."""
    parts = [field.metadata, *(getattr(p, "__metadata__", ()) for p in get_args(field.annotation))]
    return any(_LOCATION in part for part in parts)
