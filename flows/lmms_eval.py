"""`csr lmms-eval`: a policy on lmms-eval's tasks, in a process and an environment of its own.

lmms-eval pins 47 packages, so it is never installed beside ours. It gets the policy's directory,
none of our paths, no token (it prints the one it finds), and no leave to run code from the model's
directory. It ends with status 0 even where it failed: only its results file says that it worked.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from csr.errors import ConfigError, EnvironmentFault, RunFailed
from csr.files import replaced_directory
from csr.protocols import Json
from flows.evaluating import named_iteration, policy_path
from flows.home import open_store
from flows.lmms_results import flat_figures, read_results
from storage.atomic import write_json
from storage.attempt import AttemptDir
from storage.manifest import StageRecord, fingerprint, utc_now

logger = logging.getLogger("csr")

NUM_LOG_LINES = 20
_FIND = (
    "import importlib.metadata as m, importlib.util as u; "
    "print(m.version('lmms_eval') if u.find_spec('lmms_eval') else '')"
)
_HANDED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TERM|TMPDIR|TZ|LANG|LC_.+|XDG_.+|LD_LIBRARY_PATH|"
    r"(CUDA|NVIDIA|NCCL|ROCR|HIP|OMP|MKL)_.+|VLLM_(?!API_KEY).+|"
    r"HF_(HOME|HUB_CACHE|DATASETS_CACHE|ENDPOINT|HUB_OFFLINE|DATASETS_OFFLINE)|LMMS_EVAL_HOME|"
    r"SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|(https?|no|HTTPS?|NO)_(proxy|PROXY)"
)
"""The variables that the other environment gets: where things are, and no secret."""
_NO_TOKEN = {"HF_TOKEN_PATH": os.devnull, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
"""The one of `huggingface-cli login` lies in a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LmmsRequest:
    """What is asked of lmms-eval."""

    home: Path
    target: str
    """An iteration, whose policy is asked; or a model's directory."""
    tasks: str
    """Names, parted by commas."""
    python: Path
    """The interpreter of the environment that has lmms-eval."""
    model: str = "llava_hf"
    """Its name for the kind of model."""
    model_args: tuple[str, ...] = ()
    batch_size: int = 1
    limit: int | None = None
    """Samples of each task; None asks all."""
    timeout_seconds: float | None = None
    online: bool = False
    """Whether it may fetch data sets."""
    output: Path | None = None
    """Folder for the results; an iteration's lie in its own attempt."""


def evaluate(request: LmmsRequest) -> Json:
    """Run lmms-eval and read its results; see `read_results`, with `folder` besides.

    ConfigError where the request cannot work; EnvironmentFault where the environment lacks
    lmms-eval; RunFailed, with the last lines of its log, where it gives no results or takes too
    long. Nothing is kept then but what `output` held before.
    """
    attempt = named_iteration(open_store(request.home), request.target)
    model_path = policy_path(attempt) if attempt else os.path.abspath(request.target)
    python = _interpreter(request.python)
    command = _command(request, python, model_path)
    folder = _folder(request, attempt, command)
    version = _version(python)
    logger.info("lmms-eval %s: %s", version, " ".join(command[1:]))
    started_at, started = utc_now(), time.monotonic()
    with TemporaryDirectory(prefix="csr-lmms-") as temporary:
        work = Path(temporary)
        _run([*command, "--output_path", str(work / "out")], work, request)
        found = sorted(work.glob("out/**/*_results.json"))
        if not found:
            raise RunFailed(
                f"lmms-eval {version} wrote no results. Its last lines:\n{_tail(work / 'log.txt')}"
            )
        shape = {
            "lmms_eval": version,
            "command": command[1:],
            "seconds": time.monotonic() - started,
            **read_results(found[-1]),
        }
        with replaced_directory(folder) as building:
            building.mkdir(parents=True)
            write_json(building / "figures.json", shape)
            for source, name in ((found[-1], "results.json"), (work / "log.txt", "log.txt")):
                (building / name).write_bytes(source.read_bytes())
    if attempt is not None:
        _record(attempt, folder, shape, started_at)
    return {**shape, "folder": str(folder)}


def stored(attempt: AttemptDir) -> list[Json]:
    """What lmms-eval said of an attempt's policy, one object a set of tasks."""
    files = sorted(attempt.evaluation.glob("lmms_eval/*/figures.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def _folder(request: LmmsRequest, attempt: AttemptDir | None, command: Sequence[str]) -> Path:
    """Within an attempt, of this command alone: one for a few samples replaces no whole one."""
    if attempt is not None:
        name = re.sub(r"[^a-z0-9_]+", "-", request.tasks.lower()).strip("-")
        return attempt.evaluation / "lmms_eval" / f"{name}-{fingerprint(command=command[1:])[:8]}"
    if not Path(request.target).is_dir():
        raise ConfigError(
            f"{request.target} is neither an iteration in {request.home} nor a directory. Name one "
            "of the two; lmms-eval gets no hub id, so that it can stay offline."
        )
    if request.output is None:
        raise ConfigError(
            f"{request.target} is a model and no iteration, so say where its results go: --output "
            "FOLDER."
        )
    if request.output.exists():
        raise ConfigError(f"{request.output} exists, and is not overwritten. Name a new folder.")
    return request.output


def _interpreter(python: Path) -> str:
    """Its absolute path. Links stay, since an environment's interpreter is often one."""
    found = shutil.which(str(python.expanduser()))
    if found is None:
        raise ConfigError(
            f"{python} cannot be run: there is no such program. --python names the interpreter of "
            "the environment that has lmms-eval, such as /path/to/venv/bin/python."
        )
    return os.path.abspath(found)


def _version(python: str) -> str:
    command = [python, "-c", _FIND]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=_variables()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(
            f"{python} cannot be run ({error}). --python names the interpreter of the environment "
            "that has lmms-eval, such as /path/to/venv/bin/python."
        ) from None
    version = done.stdout.strip()
    if done.returncode or not version:
        told = done.stderr.strip().splitlines()[-1:] or ["no such package"]
        raise EnvironmentFault(
            f"The environment of {python} has no lmms-eval ({told[0]}). Make one that has, apart "
            "from csr's: python -m venv DIR, then DIR/bin/pip install lmms-eval."
        )
    return version


def _command(request: LmmsRequest, python: str, model_path: str) -> list[str]:
    """Without its own flag --trust_remote_code, and with that of the model off."""
    if not request.tasks.strip(" ,"):
        raise ConfigError("--tasks names no task. Give lmms-eval's names, such as pope,amber_g.")
    arguments = [f"{_path_argument(request.model)}={model_path}", *request.model_args]
    for argument in arguments:
        if "," in argument or argument.count("=") != 1:
            raise ConfigError(
                f"{argument!r} cannot be given to lmms-eval, which parts its model's arguments at "
                "',' and '='. Write name=value, and give the model a path without the two."
            )
    if any(argument.startswith("trust_remote_code") for argument in request.model_args):
        raise ConfigError(
            "trust_remote_code would run code from the model's directory. Leave it out: it is off."
        )
    given = ",".join([*arguments, "trust_remote_code=False"])
    options = ["--model", request.model, "--model_args", given, "--tasks", request.tasks]
    options += ["--batch_size", str(request.batch_size)]
    options += ["--limit", str(request.limit)] if request.limit is not None else []
    return [python, "-m", "lmms_eval", *options]


def _path_argument(model: str) -> str:
    return "model" if model.startswith(("vllm", "sglang")) else "pretrained"


def _run(command: Sequence[str], work: Path, request: LmmsRequest) -> None:
    variables = _variables() | {"PYTHONUNBUFFERED": "1"}
    if not request.online:
        variables |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    log = work / "log.txt"
    with log.open("wb") as output, _group(command, output, work, variables) as process:
        try:
            status = process.wait(request.timeout_seconds)
        except subprocess.TimeoutExpired:
            raise RunFailed(
                f"lmms-eval took longer than {request.timeout_seconds:.0f} s and was ended. Its "
                f"last lines:\n{_tail(log)}"
            ) from None
    if status:
        raise RunFailed(f"lmms-eval ended with status {status}. Its last lines:\n{_tail(log)}")


@contextlib.contextmanager
def _group(
    command: Sequence[str], output: object, work: Path, variables: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with all that it starts; none of them outlives the block."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,  # type: ignore[call-overload]
        stderr=subprocess.STDOUT,
        cwd=work,
        env=variables,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _variables() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if _HANDED_ON.fullmatch(name)}
    return kept | _NO_TOKEN


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-NUM_LOG_LINES:]) or "(it said nothing)"


def _record(attempt: AttemptDir, folder: Path, shape: Json, started_at: str) -> None:
    """So that `csr verify` knows the files; the attempt's own figures stay as they are."""
    policy = attempt.manifest.read().policy_out or {}
    record = StageRecord(
        stage=f"lmms_eval {folder.name}",
        status="done",
        fingerprint=fingerprint(policy=policy.get("sha256"), command=shape["command"]),
        metrics=flat_figures(shape),
        started_at=started_at,
        finished_at=utc_now(),
        seconds=shape["seconds"],
        packages={"lmms-eval": shape["lmms_eval"]},
    )
    attempt.manifest.record(record, files=(folder,))
