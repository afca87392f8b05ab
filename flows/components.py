"""Finds a component by its module name: the file is the registry.

An installed package adds components of its own by entry points, whose group is the package that
ours lie in: see docs/components.md.

A component's module offers `Config` and `build(config, ...)`. It may also offer
`resolved(config)`, the same configuration with everything that a preset decides written
out. A trainer's `READS` is the table it learns from. A sampler or trainer may offer
`check_model(path)`, its own test whether it can use a policy; a sampler `check_prompts(path,
config)`, a `csr.prompts.PromptCheck` for that policy; a source `check_prompts(config)`, the same
for its own needs; a similarity `check(config)`, the same for its own model. A source's
`needs_json_schema(config)` says whether the sampler must have `FOLLOWS_JSON_SCHEMA = True`, and its
`PAIRING_SETTINGS` names the fields that `pair` reads and `generate` does not: a rerun may change
them without sampling again. What
a component can tell of its work before a run, for `csr plan`, stands in `csr/planning.py`. What a
reader of prompts offers stands in `csr/prompt_files.py`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from importlib import metadata
from types import ModuleType
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator

from csr.config import ComponentConfig
from csr.errors import ConfigError
from flows.validation import NestedFaults, faults_of, suggestion

PACKAGES = (
    "csr.critics", "csr.evaluation", "csr.readers", "csr.samplers", "csr.sources", "csr.trackers",
    "csr.trainers", "rewards.similarity",
)  # fmt: skip
"""Where ours lie, and the groups of entry points of others."""


class Component(BaseModel):
    """A module of `package` chosen by `name`, with that module's own settings.

    In a recipe: `{name: vllm, dtype: float32}`, or only the name. `settings` is an instance
    of the module's `Config`, so a misspelt key fails here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    package: ClassVar[str]

    name: str
    settings: ComponentConfig

    @model_validator(mode="before")
    @classmethod
    def _read_settings(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValueError("needs a `name`: the module to use")
        if isinstance(value.get("settings"), ComponentConfig):
            return value
        options = {key: option for key, option in value.items() if key != "name"}
        return {"name": value["name"], "settings": _settings(cls.package, value["name"], options)}

    @model_serializer
    def _flatten(self) -> dict[str, Any]:
        return {"name": self.name, **self.settings.model_dump(mode="json")}

    @property
    def module(self) -> ModuleType:
        """The component's module."""
        return load(self.package, self.name)

    def build(self, **context: Any) -> Any:
        """The component itself: whatever the module's `build` makes of its settings."""
        return self.module.build(self.settings, **context)

    def with_settings(self, settings: ComponentConfig) -> Self:
        """The same component with other settings of its own kind."""
        return self.model_copy(update={"settings": settings})


def load(package: str, name: str) -> ModuleType:
    """The module behind a component's name. ConfigError names the known ones.

    Ours come first: no installed package takes the place of one.
    """
    known, others = components(package), _others(package)
    if name in known:
        return known[name]
    if name in others:
        return _load_other(others[name])
    names = [*known, *sorted(others)]
    raise ConfigError(
        f"There is no component {name!r} in {package}.{suggestion(name, names)} "
        f"Known: {', '.join(names)}."
    )


def components(package: str) -> dict[str, ModuleType]:
    """Name -> module of every component in the package, by name.

    Modules import nothing heavy, so looking at all of a package's files costs little.
    """
    files = pkgutil.iter_modules(importlib.import_module(package).__path__)
    modules = {file.name: importlib.import_module(f"{package}.{file.name}") for file in files}
    return {name: modules[name] for name in sorted(modules) if hasattr(modules[name], "build")}


@functools.cache
def _others(package: str) -> dict[str, metadata.EntryPoint]:
    """Name -> what installed packages other than ours say they add."""
    return {entry.name: entry for entry in metadata.entry_points(group=package)}


@functools.cache
def component_packages() -> tuple[str, ...]:
    """The installed packages other than ours that add components."""
    entries = [entry for package in PACKAGES for entry in _others(package).values()]
    return tuple(sorted({entry.dist.name for entry in entries if entry.dist}))


def _load_other(entry: metadata.EntryPoint) -> ModuleType:
    """ConfigError where it cannot be imported, or is no component."""
    owner = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an installed package"
    try:
        module: ModuleType = entry.load()
    except Exception as error:  # whatever its code raises
        raise ConfigError(
            f"The component {entry.name!r} of {owner} cannot be imported "
            f"({type(error).__name__}: {error}). Mend or update that package."
        ) from error
    config = getattr(module, "Config", None)
    is_settings = isinstance(config, type) and issubclass(config, ComponentConfig)
    if not is_settings or not hasattr(module, "build"):
        raise ConfigError(
            f"{entry.value}, which {owner} calls the component {entry.name!r}, is none: it must "
            "be a module with `build` and a `Config` derived from csr.config.ComponentConfig."
        )
    return module


def _settings(package: str, name: str, options: dict[str, Any]) -> ComponentConfig:
    module = load(package, name)
    try:
        settings: ComponentConfig = module.Config.model_validate(options)
    except ValueError as error:
        raise NestedFaults(faults_of(error, module.Config)) from None
    resolved = getattr(module, "resolved", None)
    return resolved(settings) if resolved else settings
