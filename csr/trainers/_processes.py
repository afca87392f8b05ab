"""Training in several processes: one a GPU, each with a whole copy of the model or with a shard.

`train_in_processes` starts `accelerate launch` on this module and waits; what the user
sees (progress, errors, the result) is as if training ran in this process.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import csr.errors
from csr.errors import CSRError, EngineLost, EnvironmentFault
from csr.protocols import Progress, TrainingResult
from csr.trainers._checkpoints import Checkpoints
from csr.trainers._isolation import staged_output
from csr.trainers._policy_files import pick_device
from csr.types import PolicyRef

if TYPE_CHECKING:
    from csr.trainers._settings import TrainingSettings

_PROGRESS = re.compile(r"csr-progress (\d+) (\d+)\n")
_TAIL_LINES = 60
"""The launcher ends with some thirty of its own, and the cause stands before them."""


def train_in_processes(
    module: str,
    config: TrainingSettings,
    *,
    policy: PolicyRef,
    data_path: Path,
    output_dir: Path,
    seed: int,
    progress: Progress,
    checkpoints: Checkpoints | None = None,
) -> TrainingResult:
    """`Trainer.train` of a trainer's module in `config.num_processes` processes of this machine.

    A process's own CSRError or EngineLost is raised here again; any other failure is an
    EnvironmentFault that quotes the end of the processes' output.
    """
    with staged_output(output_dir, ("model", "adapter")) as folder:
        job = {
            "module": module,
            "config": config.model_dump(mode="json"),
            "policy": asdict(policy),
            "data_path": str(data_path.absolute()),
            "seed": seed,
            "checkpoints": checkpoints and asdict(checkpoints),
        }
        (folder / "job.json").write_text(json.dumps(job, default=str))
        status, tail = _launch(folder, config, progress)
        _raise_own_error(folder)
        if status != 0:
            raise EnvironmentFault(
                f"Training in {config.num_processes} processes failed (exit status {status}). The "
                "end of its output:\n" + "\n".join(tail)
            )
        answer = json.loads((folder / "result.json").read_text())
    return TrainingResult(
        model_path=output_dir / "model", adapter_path=output_dir / "adapter", **answer
    )


def _launch(folder: Path, config: TrainingSettings, progress: Progress) -> tuple[int, list[str]]:
    """Exit status and the last lines of output. The processes end with this call."""
    settings = folder / "accelerate.json"
    settings.write_text(json.dumps(launch_settings(config)))
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(settings),
        # Any free port: two trainings may share the machine.
        "--main_process_port", "0", "--module", "csr.trainers._processes", str(folder),
    ]  # fmt: skip
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    launcher = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    try:
        assert launcher.stdout is not None
        for line in launcher.stdout:
            if counts := _PROGRESS.fullmatch(line):
                progress(int(counts[1]), int(counts[2]))
            else:
                tail.append(line.rstrip())
        return launcher.wait(), list(tail)
    finally:
        if launcher.poll() is None:
            launcher.terminate()  # the launcher ends its processes before itself
            launcher.wait()


def launch_settings(config: TrainingSettings) -> dict[str, Any]:
    """What `accelerate config` would write: the user's file, else plain data-parallel processes.

    On a CPU too: accelerate starts several processes there by MPI alone, unless it is told that
    they are of the kind that GPUs have. EnvironmentFault for a file that cannot be launched.
    """
    ours = {
        "mixed_precision": "no",  # the trainer's own settings decide
        "num_machines": 1,
        "num_processes": config.num_processes,
    }
    if config.accelerate_config is not None:
        return _users_settings(config.accelerate_config) | ours
    return ours | {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU",
        "use_cpu": pick_device(config.device) == "cpu",
        "debug": False,
    }


def _users_settings(path: Path) -> dict[str, Any]:
    import yaml

    try:
        settings = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise EnvironmentFault(
            f"trainer.accelerate_config: {path} cannot be read ({error}). Give a file that "
            "`accelerate config` writes."
        ) from error
    if not isinstance(settings, dict) or "distributed_type" not in settings:
        raise EnvironmentFault(
            f"trainer.accelerate_config: {path} has no distributed_type, so it is not a file of "
            "`accelerate config`. Make one with `accelerate config --config_file PATH`."
        )
    if settings.get("num_machines", 1) != 1:
        raise EnvironmentFault(
            f"trainer.accelerate_config: {path} is for {settings['num_machines']} machines; "
            "training runs on the one that the flow runs on. Set num_machines to 1."
        )
    return settings


def _raise_own_error(folder: Path) -> None:
    """The first process that failed by itself knows why; the others were only ended."""
    for file in sorted(folder.glob("error-*.json")):
        error = json.loads(file.read_text())
        raise getattr(csr.errors, error["type"])(error["message"])


def _main(folder: Path) -> int:
    """What each process runs. Exit status 0, or 1 after writing the error."""
    job: dict[str, Any] = json.loads((folder / "job.json").read_text())
    trainer = importlib.import_module(job["module"])
    rank, kept = int(os.environ["RANK"]), job["checkpoints"]

    def report(done: int, total: int) -> None:
        if rank == 0:
            print(f"csr-progress {done} {total}", flush=True)

    try:
        result = trainer.build(trainer.Config(**job["config"])).train_here(
            policy=PolicyRef(**job["policy"]),
            data_path=Path(job["data_path"]),
            output_dir=folder if rank == 0 else folder / f"rank-{rank}",
            seed=job["seed"],
            progress=report,
            checkpoints=kept and Checkpoints(**(kept | {"directory": Path(kept["directory"])})),
            rank=rank,
        )
    except (CSRError, EngineLost) as error:
        failure = {"type": type(error).__name__, "message": str(error)}
        (folder / f"error-{rank}.json").write_text(json.dumps(failure))
        return 1
    if rank == 0:
        answer = {"metrics": result.metrics, "history": result.history}
        (folder / "result.json").write_text(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
