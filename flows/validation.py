"""Turns what pydantic finds wrong with a recipe into lines that a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from csr.errors import ConfigError, shown

MAX_FAULTS_TOLD = 20
MAX_KEY_TOLD = 80
"""Characters of a misspelt key."""

M = TypeVar("M", bound=BaseModel)

Fault = tuple[tuple[str, ...], str]
"""Where, as keys from the top, and what is wrong."""


class NestedFaults(ValueError):
    """Raised inside a validator: the faults of settings that were validated apart."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(text for _, text in faults))
        self.faults = faults


def validate(model: type[M], document: Any, where: str) -> M:
    """`document` as a `model`. ConfigError lists the faults, each as `where: place: text`."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        lines = [
            ": ".join(filter(None, (where, ".".join(place), text)))
            for place, text in faults_of(error, model)[:MAX_FAULTS_TOLD]
        ]
        raise ConfigError("\n".join(lines)) from None


def faults_of(error: ValueError, model: type[BaseModel]) -> list[Fault]:
    """The first faults in an error of `model`'s validation, nested components' unfolded."""
    if not isinstance(error, ValidationError):
        return [((), str(error))]
    faults: list[Fault] = []
    for found in error.errors()[:MAX_FAULTS_TOLD]:
        place = tuple(str(key)[:MAX_KEY_TOLD] for key in found["loc"])
        cause = found.get("ctx", {}).get("error")
        if isinstance(cause, NestedFaults):
            faults += [((*place, *inner), text) for inner, text in cause.faults]
        elif isinstance(cause, Exception):
            faults.append((place, str(cause)))
        else:
            faults.append((place, _explain(found, model)))
    return faults


def suggestion(word: str, known: Sequence[str]) -> str:
    """A question to append, with a blank before it, where a known word is near; else nothing."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _explain(found: Any, model: type[BaseModel]) -> str:
    if found["type"] == "extra_forbidden":
        known = _fields_at(model, found["loc"][:-1])
        if not known:
            return "unknown setting. There are no settings here."
        return (
            f"unknown setting.{suggestion(str(found['loc'][-1]), known)} Known: {', '.join(known)}."
        )
    if found["type"] == "missing":
        return "is missing, and has no default."
    return f"{found['msg']} (given: {shown(found['input'], 80)})."


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    for key in location:
        annotation = model.model_fields[key].annotation if key in model.model_fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        inner = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not inner:
            break
        model = inner[0]
    return sorted(model.model_fields)
