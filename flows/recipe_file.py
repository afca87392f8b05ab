"""Reads a recipe's YAML file and applies `a.b=value` overrides, before anything is validated."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from csr.errors import ConfigError, shown
from csr.records import is_unstorable
from flows.shipped import recipe_path, suggested

MAX_RECIPE_BYTES = 2**16
"""Of the file; the longest under recipes/ has 2 kB."""
MAX_DEPTH = 32
"""Mappings and lists within each other; recipes have 4."""


def read_document(
    path: Path, overrides: tuple[str, ...] = (), components: Sequence[str] = ()
) -> dict[str, Any]:
    """The file's settings. ConfigError where it is no YAML mapping, or an override cannot work.

    `components` are the settings that may be a mere name: `trainer: dpo` is short for
    `trainer: {name: dpo}`.
    """
    document = _read_yaml(recipe_path(path))
    for name in components:
        if isinstance(document.get(name), str):
            document[name] = {"name": document[name]}
    for override in overrides:
        apply_override(document, override)
    return document


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key stands once: of two values, one would go unnoticed."""

    # A package that vLLM loads for structured output changes the table of the base class.
    yaml_constructors: ClassVar[dict[Any, Any]] = dict(yaml.SafeLoader.yaml_constructors)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the base class does, after looking for repeated keys."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # the base class refuses it
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shown(key)} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _parse(text: str) -> Any:
    """YAMLError where the text is no YAML, or not of the kind that is read."""
    try:
        _refuse_traps(text)
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError:
        raise
    except Exception as error:  # what int(), date() and the like raise, and too deep nesting
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error


def _refuse_traps(text: str) -> None:
    """YAMLError where a short text costs much time or memory, or holds what no table can hold.

    With aliases, ten lines can mean more than a machine has room for; depth costs its square.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(
                f"the alias *{event.anchor} is not read, write out what it stands for"
            )
        if isinstance(event, yaml.ScalarEvent) and is_unstorable(event.value):
            raise yaml.YAMLError(f"{shown(event.value)} holds a NUL or half of a surrogate pair")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {MAX_DEPTH} deep")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = _parse(_read_text(path))
    except FileNotFoundError:
        raise ConfigError(
            f"There is no recipe at {path}.{suggested(path)} csr recipes lists those that come "
            "with csr."
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(
            f"The recipe {path} cannot be read as YAML: {error}. Mend the file, or give another."
        ) from None
    if not isinstance(document, dict):
        raise ConfigError(
            f"The recipe {path} is not a mapping of settings. csr recipes own_data shows one."
        )
    return document


def _read_text(path: Path) -> str:
    """The text of a plain file: a device would be read without end, and a pipe waited for."""
    if path.exists() and not path.is_file():
        raise OSError("it is no file")
    if path.stat().st_size > MAX_RECIPE_BYTES:
        raise OSError(f"it has more than {MAX_RECIPE_BYTES:,} bytes")
    return path.read_text(encoding="utf-8")


def _key(document: dict[Any, Any], name: str) -> Any:
    """The key that `name` stands for: iterations are numbers in YAML, and texts in JSON."""
    return int(name) if name.isdecimal() and int(name) in document else name


def apply_override(document: dict[str, Any], override: str) -> None:
    """Set what `a.b=value` says. ConfigError where that cannot be."""
    dotted, equals, text = override.partition("=")
    *parents, last = dotted.split(".")
    if not equals or not all((*parents, last)):
        raise ConfigError(
            f"--set {shown(override)} is not of the form a.b=value. Write, for example, "
            "--set reward.image_weight=0.5."
        )
    for name in parents:
        key = _key(document, name)
        if document.get(key) is None:
            document[key] = {}
        document = document[key]
        if not isinstance(document, dict):
            raise ConfigError(
                f"--set {shown(override)}: {key!r} is no mapping of settings in the recipe, so "
                "nothing below it can be set. Change it in the recipe's file."
            )
    try:
        document[last] = _parse(text)
    except yaml.YAMLError:
        raise ConfigError(
            f"--set {shown(override)}: {shown(text)} cannot be read as a YAML value. Quote it."
        ) from None
