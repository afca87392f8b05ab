"""Reads a recipe's YAML file and applies `a.b=value` overrides, before anything is validated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from csr.errors import ConfigError


def read_document(
    path: Path, overrides: tuple[str, ...] = (), components: Sequence[str] = ()
) -> dict[str, Any]:
    """The file's settings. ConfigError where it is no YAML mapping, or an override cannot work.

    `components` are the settings that may be a mere name: `trainer: dpo` is short for
    `trainer: {name: dpo}`.
    """
    document = _read_yaml(path)
    for name in components:
        if isinstance(document.get(name), str):
            document[name] = {"name": document[name]}
    for override in overrides:
        apply_override(document, override)
    return document


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key stands once: of two values, one would go unnoticed."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the base class does, after looking for repeated keys."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = [key for key in keys if keys.count(key) > 1]
        if repeated:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {repeated[0]!r} stands twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except FileNotFoundError:
        raise ConfigError(f"There is no recipe at {path}. See the files under recipes/.") from None
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(
            f"The recipe {path} cannot be read as YAML: {error}. Mend the file, or give another."
        ) from None
    if not isinstance(document, dict):
        raise ConfigError(
            f"The recipe {path} is not a mapping of settings. See the files under recipes/."
        )
    return document


def apply_override(document: dict[str, Any], override: str) -> None:
    """Set what `a.b=value` says. ConfigError where that cannot be."""
    dotted, equals, text = override.partition("=")
    *parents, last = dotted.split(".")
    if not equals or not all((*parents, last)):
        raise ConfigError(
            f"--set {override!r} is not of the form a.b=value. Write, for example, "
            "--set reward.image_weight=0.5."
        )
    for key in parents:
        if document.get(key) is None:
            document[key] = {}
        document = document[key]
        if not isinstance(document, dict):
            raise ConfigError(
                f"--set {override!r}: {key!r} is no mapping of settings in the recipe, so nothing "
                "below it can be set. Change it in the recipe's file."
            )
    try:
        document[last] = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(
            f"--set {override!r}: {text!r} cannot be read as a YAML value. Quote it."
        ) from None
