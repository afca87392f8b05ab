"""What we leave out of Prefect, and what holds its versions together."""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def requirements() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {each.name: each for each in map(Requirement, project["dependencies"])}


def test_the_versions_that_break_scheduling_are_kept_out() -> None:
    """SQLAlchemy 2.1 ends the scheduler of Prefect 3.7.7; later Prefects want another fastapi
    than vLLM does.
    """
    sqlalchemy, prefect = requirements()["sqlalchemy"], requirements()["prefect"]
    assert not sqlalchemy.specifier.contains("2.1.0")
    assert sqlalchemy.specifier.contains(importlib.metadata.version("sqlalchemy"))
    assert str(prefect.specifier) == "==3.7.7"
    assert importlib.metadata.version("prefect") == "3.7.7"


def test_no_task_caches_and_nothing_persists_its_result() -> None:
    """Prefect's cache would decide what is done by the flow run's ID, and its results would be
    pickles outside of the run's home: the manifests decide, and results are names.
    """
    code = """
import flows.run as run
from prefect.cache_policies import NO_CACHE
from prefect import Flow, Task
tasks = [each for each in vars(run).values() if isinstance(each, Task)]
flows = [each for each in vars(run).values() if isinstance(each, Flow)]
assert [t.name for t in tasks] == ["stage_task"], tasks
assert sorted(f.name for f in flows) == ["csr-evaluate", "csr-iteration", "csr-run"], flows
assert all(t.cache_policy == NO_CACHE for t in tasks)
assert not any(each.persist_result for each in [*tasks, *flows])
print("looked")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "looked\n", done.stderr


def test_no_work_runs_inside_a_transaction() -> None:
    """A transaction stages the results of its tasks until it ends: a crash would lose them."""
    sources = [path.read_text() for path in (ROOT / "flows").glob("*.py")]
    assert len(sources) > 30
    assert not any("transaction(" in text for text in sources)
