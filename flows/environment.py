"""The environment variables that CSR sets, each with its reason. The one place that sets any.

Other packages read these at import, so `apply` runs before any of them is
imported. A value that the user has set stays.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable."""

    name: str
    value: str
    """`{home}` stands for the absolute home folder."""
    reason: str


TELEMETRY = (
    Setting("DO_NOT_TRACK", "1", "no usage statistics, from any package that honours it"),
    Setting("VLLM_NO_USAGE_STATS", "1", "vLLM sends none"),
    Setting("HF_HUB_DISABLE_TELEMETRY", "1", "the hub client sends none"),
    Setting("GRADIO_ANALYTICS_ENABLED", "False", "gradio's pages send none"),
    Setting("WANDB_ERROR_REPORTING", "false", "wandb sends its makers neither traces nor crashes"),
    Setting("PREFECT_SERVER_ANALYTICS_ENABLED", "false", "Prefect's server sends none"),
    Setting("PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS", "false", "Prefect collects no metrics"),
    Setting("PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED", "false", "no question about releases"),
)

VLLM_LOGGING = Setting(
    "VLLM_CONFIGURE_LOGGING",
    "0",
    "with each engine vLLM would replace the handlers that pass its warnings on to the flow UI",
)

PREFECT = (
    Setting("PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT", "false", "no advertisement in the UI"),
    Setting(
        "PREFECT_HOME",
        "{home}/.prefect",
        "a run leaves nothing outside its home; Prefect makes this folder but not its parent, "
        "so the home exists before prefect is imported",
    ),
    Setting(
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH",
        "{home}/.prefect/results",
        "PREFECT_HOME does not move the results: two homes would share them",
    ),
    Setting("PREFECT_SERVER_MEMO_STORE_PATH", "{home}/.prefect/memo_store.toml", "the same"),
    Setting("PREFECT_RESULTS_DEFAULT_SERIALIZER", "json", "a stored result is never a pickle"),
    Setting(
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL",
        "CRITICAL",
        "the terminal shows the run's own lines, and a failure once; the flow UI has every line",
    ),
    Setting(
        "PREFECT_LOGGING_EXTRA_LOGGERS",
        "csr,vllm,trl,transformers,peft,py.warnings",
        "so that the flow UI has our lines too, and what the libraries warn of",
    ),
    VLLM_LOGGING,
    Setting(
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW",
        "ignore",
        "what is logged before the flow starts belongs to no flow, and is no fault",
    ),
    Setting(
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS",
        "120",
        "the first start makes the database, which takes longer than the default 20 s",
    ),
    Setting(
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE",
        "prefect.server.concurrency.lease_storage.filesystem",
        "in memory, a restart of the server would end runs and lose slots",
    ),
    Setting("PREFECT_SERVER_API_HOST", "127.0.0.1", "a server answers this machine alone"),
)

GRADIO = Setting("GRADIO_TEMP_DIR", "{home}/.gradio", "gradio makes it when it is imported")

TERMINAL = (
    Setting("TOKENIZERS_PARALLELISM", "false", "else tokenizers warns at each fork"),
    Setting("TORCH_CPP_LOG_LEVEL", "ERROR", "else vLLM's memory binding is announced as a warning"),
)

OFFLINE = (
    Setting("HF_HUB_OFFLINE", "1", "demo and tests never try the network"),
    Setting("HF_DATASETS_OFFLINE", "1", "the same, for data sets"),
)


_OF_WORKERS = ("PYTHONPATH", "OMP_NUM_THREADS", "HF_HOME", "HF_HUB_CACHE")
"""Variables besides that decide what a worker imports, finds and takes."""


def apply(home: Path, *, offline: bool = False, console_level: str | None = None) -> None:
    """Set what is unset; `OFFLINE` only when asked. Child processes inherit it.

    `console_level` is Prefect's on the terminal, where its own lines are the point.
    """
    if console_level is not None:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", console_level)
    for name, value in settings(home, offline=offline).items():
        os.environ.setdefault(name, value)


def for_stage_process() -> dict[str, str]:
    """This process's environment, with what it imports from."""
    imports = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return {VLLM_LOGGING.name: VLLM_LOGGING.value, **os.environ, "PYTHONPATH": imports}


def of_workers() -> dict[str, str]:
    """What of this process's environment a worker on another machine must share.

    Secrets are not among it: whoever sees a cluster sees what its workers are given.
    """
    names = [each.name for each in (*TELEMETRY, *OFFLINE)]
    shared = {name: os.environ[name] for name in (*names, *_OF_WORKERS) if name in os.environ}
    return {VLLM_LOGGING.name: VLLM_LOGGING.value, **shared}


def settings(home: Path, *, offline: bool = False) -> dict[str, str]:
    """Name -> value as `apply` would set them for `home`, in the tables' order."""
    absolute = str(home.expanduser().absolute())
    chosen = TELEMETRY + PREFECT + (GRADIO,) + TERMINAL + (OFFLINE if offline else ())
    return {each.name: each.value.replace("{home}", absolute) for each in chosen}
