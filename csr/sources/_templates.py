"""Texts of a source's settings in which slots such as `{reference}` are filled in."""

from __future__ import annotations

from collections.abc import Sequence
from string import Formatter


def check_template(
    name: str, template: str, slots: Sequence[str], *, optional: Sequence[str] = ()
) -> None:
    """ValueError where the setting `name` lacks a slot, or has one that nothing fills in.

    `optional` are those of the slots that may be left out.
    """
    required = [slot for slot in slots if slot not in optional]
    try:
        named = {slot for _, slot, _, _ in Formatter().parse(template) if slot is not None}
    except ValueError as error:
        raise ValueError(f"{name} cannot be read ({error}). Write a brace twice.") from None
    if missing := [slot for slot in required if slot not in named]:
        may_have = f", and may have {', '.join(optional)}" if optional else ""
        raise ValueError(
            f"{name} lacks {{{missing[0]}}}. It needs {', '.join(required)}, each in braces"
            f"{may_have}."
        )
    if unknown := sorted(named - set(slots)):
        raise ValueError(
            f"{name} has {{{unknown[0]}}}, which nothing fills in. A brace that is meant is "
            "written twice."
        )
