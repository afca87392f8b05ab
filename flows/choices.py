"""The components that a recipe chooses by name: one kind a package, one module a component."""

from __future__ import annotations

from typing import ClassVar

from flows.components import Component


class SamplerChoice(Component):
    """A module of `csr/samplers`."""

    package: ClassVar[str] = "csr.samplers"


class SourceChoice(Component):
    """A module of `csr/sources`."""

    package: ClassVar[str] = "csr.sources"


class TrainerChoice(Component):
    """A module of `csr/trainers`."""

    package: ClassVar[str] = "csr.trainers"


class SimilarityChoice(Component):
    """A module of `rewards/similarity`."""

    package: ClassVar[str] = "rewards.similarity"


class CriticChoice(Component):
    """A module of `csr/critics`."""

    package: ClassVar[str] = "csr.critics"


class BenchmarkChoice(Component):
    """A module of `csr/evaluation`."""

    package: ClassVar[str] = "csr.evaluation"


class TrackerChoice(Component):
    """A module of `csr/trackers`."""

    package: ClassVar[str] = "csr.trackers"
