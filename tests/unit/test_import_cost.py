"""`csr --help` is instant because no module of ours imports an engine at its top."""

import json
import pkgutil
import subprocess
import sys

import pytest

HEAVY = {
    "torch", "vllm", "transformers", "trl", "peft", "open_clip", "accelerate", "datasets", "gradio",
    "tensorboard", "trackio", "wandb",
}  # fmt: skip

REPORT_IMPORTED = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def modules_of(*packages: str) -> list[str]:
    found = list(packages)
    for package in packages:
        path = [package.replace(".", "/")]
        found += [module.name for module in pkgutil.walk_packages(path, f"{package}.")]
    return sorted(found)


def imported_by(modules: list[str]) -> set[str]:
    """Top-level names in `sys.modules` of a fresh process that has imported `modules`."""
    command = [sys.executable, "-c", REPORT_IMPORTED, json.dumps(modules)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return set(json.loads(answer.stdout))


@pytest.mark.parametrize("package", ["csr", "rewards", "storage"])
def test_no_module_imports_an_engine_or_prefect(package: str) -> None:
    modules = modules_of(package)
    assert len(modules) > 2
    assert imported_by(modules) & (HEAVY | {"prefect"}) == set()


def test_the_command_line_imports_no_engine_and_no_prefect() -> None:
    imported = imported_by(["flows.cli", "flows.config", "flows.doctor", "flows.environment"])
    assert "cyclopts" in imported
    assert imported & (HEAVY | {"prefect"}) == set()


def test_the_flow_imports_no_engine() -> None:
    assert imported_by(modules_of("flows")) & HEAVY == set()


def test_the_check_sees_an_import() -> None:
    assert "safetensors" in imported_by(["safetensors"])
