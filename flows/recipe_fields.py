"""Every setting of a recipe, from the pydantic models that validate it."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from csr.config import Location
from csr.errors import ConfigError, shown
from flows.components import Component, components
from flows.config import Recipe
from flows.validation import suggestion

INTRODUCTION = """\
# Recipe fields

Everything that a recipe may say, made from the models that check it. `csr validate RECIPE` prints a
recipe with every default filled in; `--set section.field=value` changes one field on the command
line. A field without a default must be given. A key that is not listed here is an error.

A section that chooses a component (`sampler`, `source`, `similarity`, `critic`, `trainer`, each
entry of `evaluation`) has the component's `name` and, beside it, that component's own fields:
`trainer: {name: dpo, beta: 0.1}`.
"""
PLAIN = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    Any: "anything",
}
BOUNDS = {
    "ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "a multiple of",
    "min_length": "of length ≥",
}  # fmt: skip
LONG = 60
"""Characters of a default: a longer one is a prompt's text, and is shown below the field."""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([INTRODUCTION, *(text for _, text in _parts())])


def section(name: str) -> str:
    """A part of the page for the terminal: of a section, of one component, or of `recipe` itself.

    `trainer` has every trainer's fields, `trainer.dpo` those of one. ConfigError names the parts.
    """
    parts = _parts()
    found = [text for part, text in parts if part == name or part.startswith(f"{name}.")]
    if not found:
        names = sorted({known for part, _ in parts for known in (part, part.partition(".")[0])})
        raise ConfigError(
            f"A recipe has no section {shown(name)}.{suggestion(name, names)} "
            f"Known: {', '.join(names)}."
        )
    return _plain("\n".join(found))


def _plain(markdown: str) -> str:
    """Without anchors, links and escapes, which only the site reads."""
    bare = re.sub(r'<a id="[^"]*"></a>|\\$', "", markdown, flags=re.MULTILINE)
    unlinked = re.sub(r"\[([^]]*)\]\(#[^)]*\)", r"\1", bare)
    return unlinked.replace("&lt;", "<").replace(r"\*", "*")


def _parts() -> list[tuple[str, str]]:
    """Name -> text of each part of the page: `recipe`, `reward`, `trainer.dpo`."""
    choices, sections = _kinds()
    parts = [("recipe", "## The recipe itself\n\n" + _fields(Recipe, "recipe"))]
    for name, model in sections:
        told = [f"## {name}\n", _docstring(model), _fields(model, name), *_reward_presets(model)]
        parts.append((name, "\n".join(told)))
    for name, choice in choices:
        for called, component in components(choice.package).items():
            parts.append((f"{name}.{called}", "\n".join(_component(name, component))))
    return parts


def _reward_presets(model: type[BaseModel]) -> list[str]:
    """Of the model that they are instances of; other models' modules may import the name."""
    module = importlib.import_module(model.__module__)
    presets = getattr(module, "REWARD_PRESETS", {}).values()
    return _presets(module, "REWARD_PRESETS") if any(type(p) is model for p in presets) else []


def models() -> Iterator[type[BaseModel]]:
    """Every model whose fields the page tells, nested ones included."""
    choices, sections = _kinds()
    found: list[type[BaseModel]] = [Recipe, *(model for _, model in sections)]
    found += [m.Config for _, choice in choices for m in components(choice.package).values()]
    while found:
        model = found.pop()
        yield model
        found += [inner for f in model.model_fields.values() for inner in _nested(f)]


def _kinds() -> tuple[list[tuple[str, type[Component]]], list[tuple[str, type[BaseModel]]]]:
    """The recipe's sections: those that choose a component, once a package, and the others."""
    choices: dict[str, tuple[str, type[Component]]] = {}
    sections = []
    for name, field in Recipe.model_fields.items():
        for model in models_of(field.annotation):
            if issubclass(model, Component):
                choices.setdefault(model.package, (name, model))
            else:
                sections.append((name, model))
    return list(choices.values()), sections


def _component(section: str, module: ModuleType) -> list[str]:
    name = module.__name__.rpartition(".")[2]
    told = inspect.getdoc(module) or ""
    return [
        f"## {section}: {name}\n",
        _markdown(told.split("\n\n")[0]) + "\n",
        _fields(module.Config, f"{section}.{name}") or "It has no settings.\n",
        *_presets(module, "PRESETS"),
    ]


def _fields(model: type[BaseModel], place: str, indent: str = "") -> str:
    lines = []
    for name, field in model.model_fields.items():
        anchor = f"{place}.{name}".replace("_", "-").replace(".", "-")
        facts = ", ".join(filter(None, (_type(field), _default(field))))
        lines.append(f'{indent}- <a id="{anchor}"></a>**`{name}`** ({facts})\\')
        lines += [f"{indent}  {line}" for line in _told(name, field).splitlines()]
        inner = [m for m in _nested(field) if not _is_section(model, m)]
        if inner:
            lines += ["", *(_fields(m, anchor, indent + "  ") for m in inner)]
    return "\n".join([*lines, ""])


def _is_section(model: type[BaseModel], inner: type[BaseModel]) -> bool:
    return model is Recipe and any(inner is section for _, section in _kinds()[1])


def _told(name: str, field: FieldInfo) -> str:
    chosen = [m for m in models_of(field.annotation) if issubclass(m, Component)]
    text = re.sub(r"\bNone\b", "null", _markdown(field.description or ""))
    if chosen:
        first = next(n for n, choice in _kinds()[0] if choice.package == chosen[0].package)
        links = ", ".join(f"[{n}](#{first}-{n})" for n in components(chosen[0].package))
        return f"{text}\nOne of {links}.".strip()
    if any(_is_section(Recipe, m) for m in models_of(field.annotation)):
        return f"{text}\nIts fields: [{name}](#{name}).".strip()
    default = field.default
    if isinstance(default, str) and len(default) > LONG:
        text += f"\n\n```text\n{default.strip()}\n```"
    return text


def _type(field: FieldInfo) -> str:
    bounds = []
    for constraint in field.metadata:
        bounds += [
            f"{sign} {getattr(constraint, name)}"
            for name, sign in BOUNDS.items()
            if getattr(constraint, name, None) is not None
        ]
        if pattern := getattr(constraint, "pattern", None):
            bounds.append(f"like `{pattern}`")
    kind = "path or hub id" if "location" in field.metadata else _kind(field.annotation)
    kind, null, _ = kind.partition(" or null")
    return " ".join([kind, " and ".join(bounds)]).strip() + null


def _kind(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation == Location:
        return "path or hub id"
    if origin is Annotated:
        return _kind(inner[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        kinds = [_kind(part) for part in inner if part is not NoneType]
        return " or ".join([*kinds, *(["null"] if NoneType in inner else [])])
    if origin is tuple or origin is list:
        return f"list of {_kind(inner[0])}"
    if origin is dict:
        return f"mapping of {_kind(inner[0])} to {_kind(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Component):
        return "component"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return PLAIN[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    if value is None:
        return "default null"
    value = value.value if isinstance(value, Enum) else value
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, tuple | list):
        shown = "[" + ", ".join(map(str, value)) + "]"
    return f"default `{shown}`" if shown and len(shown) <= LONG else ""


def _nested(field: FieldInfo) -> list[type[BaseModel]]:
    return [m for m in models_of(field.annotation) if not issubclass(m, Component)]


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field of this type may hold."""
    parts = [annotation, *get_args(annotation)]
    return [p for p in parts if isinstance(p, type) and issubclass(p, BaseModel)]


def _presets(module: ModuleType, name: str) -> list[str]:
    """A table of the presets that a module has: what `null` stands for in each."""
    presets: dict[str, Any] = getattr(module, name, {})
    rows = {
        key: value if isinstance(value, dict) else value.model_dump(mode="json")
        for key, value in presets.items()
    }
    if not rows:
        return []
    lines = [
        "What each preset says:\n",
        "| field | " + " | ".join(rows) + " |",
        "|---|" + "---|" * len(rows),
    ]
    for field in next(iter(rows.values())):
        cells = [f"`{row[field]}`" for row in rows.values() if not isinstance(row[field], dict)]
        if cells:
            lines.append(f"| `{field}` | " + " | ".join(cells) + " |")
    return ["\n".join([*lines, ""])]


def _docstring(model: type[BaseModel]) -> str:
    return _markdown(inspect.getdoc(model) or "") + "\n"


def _markdown(text: str) -> str:
    """A docstring as Markdown: what stands in backticks stays, other `<` would be a tag."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        p if p.startswith("`") else p.replace("<", "&lt;").replace("*", r"\*") for p in parts
    )
