"""What a shell offers at the Tab key, asked of the shells themselves."""

import os
import pty
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import app

ROOT = Path(__file__).resolve().parents[2]
COMMAND = f"""#!/bin/sh
exec {sys.executable} -c 'from flows.cli import main; main()' "$@"
"""
ASK_BASH = r"""
source "$1"; shift
read -r _ _ function _ <<< "$(complete -p csr)"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); cur="${!#}"
"$function" csr "${!#}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"""
RUNS = {"tiny-b0f2": ("01.1", "02.1", "02.2", "02.10"), "odd name": ("01.1",)}


@pytest.fixture
def shell_home(tmp_path: Path) -> Path:
    """A folder with runs, a recipe, and the `csr` of this checkout in `bin`."""
    for run_id, attempts in RUNS.items():
        for attempt in attempts:
            iteration, _, number = attempt.partition(".")
            folder = tmp_path / "runs" / run_id / "iterations" / iteration / "attempts" / number
            folder.mkdir(parents=True)
        (tmp_path / "runs" / run_id / "run.json").touch()
        os.utime(tmp_path / "runs" / run_id / "run.json", (len(attempts), len(attempts)))
    (tmp_path / "runs" / "no-run").mkdir()
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "csr").write_text(COMMAND)
    (tmp_path / "bin" / "csr").chmod(0o755)
    return tmp_path


def variables_of(folder: Path) -> dict[str, str]:
    return {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
    }


def run_shell(folder: Path, *command: str, **variables: str) -> list[str]:
    environment = variables_of(folder) | variables
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return sorted(done.stdout.splitlines())


def bash(folder: Path, *words: str, **variables: str) -> list[str]:
    """What bash offers for the last of these words of a command line."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    script = folder / "csr.bash"
    script.write_text(app.generate_completion(shell="bash"))
    return run_shell(folder, "bash", "-c", ASK_BASH, "bash", str(script), *words, **variables)


def test_bash_completes_commands_options_and_choices(shell_home: Path) -> None:
    assert bash(shell_home, "csr", "re") == ["recipes", "report", "rerun", "review"]
    assert bash(shell_home, "csr", "rerun", "--") == [
        "--from", "--help", "--home", "--json", "--set", "--until", "--version",
    ]  # fmt: skip
    assert bash(shell_home, "csr", "rerun", "--from", "s") == ["sample"]
    assert bash(shell_home, "csr", "completion", "") == ["bash", "fish", "zsh"]
    assert bash(shell_home, "csr", "run", "mi") == ["mine.yaml"]


def test_bash_completes_runs_of_the_home_in_question(shell_home: Path) -> None:
    assert bash(shell_home, "csr", "ls", "ti") == ["tiny-b0f2"]
    assert bash(shell_home, "csr", "compare", "tiny-b0f2", "o") == [r"odd\ name"]
    (shell_home / "runs").rename(shell_home / "elsewhere")
    assert bash(shell_home, "csr", "ls", "ti") == [""]
    assert bash(shell_home, "csr", "ls", "--home", "elsewhere", "ti") == ["tiny-b0f2"]
    assert bash(shell_home, "csr", "ls", "ti", CSR_HOME="elsewhere") == ["tiny-b0f2"]


def test_bash_completes_iterations_and_behind_a_point_attempts(shell_home: Path) -> None:
    assert bash(shell_home, "csr", "show", "ti") == ["tiny-b0f2/01", "tiny-b0f2/02"]
    attempts = ["tiny-b0f2/02.1", "tiny-b0f2/02.10", "tiny-b0f2/02.2"]
    assert bash(shell_home, "csr", "diff", "tiny-b0f2/02.1", "tiny-b0f2/02.") == attempts


def test_fish_completes_iterations(shell_home: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("needs fish")
    (shell_home / "csr.fish").write_text(app.generate_completion(shell="fish"))
    ask = "source csr.fish; complete -C 'csr show ti'"
    answers = run_shell(shell_home, "fish", "--no-config", "-c", ask)
    assert [answer.split("\t")[0] for answer in answers] == ["tiny-b0f2/01", "tiny-b0f2/02"]


def test_zsh_completes_iterations_once_it_is_installed(shell_home: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("needs zsh")
    (shell_home / ".zshrc").write_text("autoload -Uz compinit && compinit -u\n")
    run_shell(shell_home, "csr", "completion", "zsh", "--install")
    terminal, inside = pty.openpty()
    environment = {**os.environ, **variables_of(shell_home), "TERM": "dumb"}
    command = ["zsh", "-i"]
    with subprocess.Popen(
        command, stdin=inside, stdout=inside, stderr=inside, cwd=shell_home, env=environment
    ) as zsh:
        os.write(terminal, b"csr show ti\t")
        seen = read_until(terminal, "tiny-b0f2/0")
        zsh.kill()
    os.close(inside)
    os.close(terminal)
    assert "tiny-b0f2/0" in seen


def read_until(terminal: int, wanted: str, seconds: float = 30) -> str:
    """What a terminal shows until that stands there, or nothing more comes."""
    seen = ""
    while wanted not in seen and select.select([terminal], [], [], seconds)[0]:
        seen += os.read(terminal, 4096).decode(errors="replace")
    return seen


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", ".local/share/bash-completion/completions/csr"),
        ("fish", ".config/fish/completions/csr.fish"),
    ],
)
def test_install_puts_the_script_where_the_shell_reads_it(
    shell_home: Path, shell: str, file: str
) -> None:
    [told] = run_shell(shell_home, "csr", "completion", shell, "--install")
    assert told == f"{shell_home / file} (new shells complete `csr`)"
    assert (shell_home / file).read_text() == app.generate_completion(shell=shell)
