"""Whose log lines reach the flow UI: ours, and what the libraries warn of, whatever they set up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LOGGERS = ("csr", "vllm", "trl", "transformers", "peft", "py.warnings")

# Each library in the order of a run: Prefect first, the engine last.
CODE = """
import json, logging, sys, warnings
from pathlib import Path
from flows import environment
environment.apply(Path(sys.argv[1]), offline=True)
import flows.run
from prefect.logging.handlers import APILogHandler
import transformers, trl, peft
from vllm.config.logging import LoggingConfig
from vllm.logger import configure_logging_if_needed
configure_logging_if_needed(LoggingConfig())  # as each engine does

sent = []
class Sink(APILogHandler):
    def emit(self, record):
        sent.append([record.name, record.levelname, record.getMessage().splitlines()[0]])
for handler in [h for name in sys.argv[2:] for h in logging.getLogger(name).handlers]:
    if type(handler) is APILogHandler:
        handler.__class__ = Sink

from flows.progress import log_to_console
log_to_console()
for name in ("csr", "vllm.v1.core", "trl.trainer", "transformers.modeling", "peft.tuners"):
    logging.getLogger(name).info("detail")
    logging.getLogger(name).warning("beware")
warnings.warn("outdated", UserWarning)
print(json.dumps(sent))
"""


@pytest.mark.slow
def test_what_libraries_warn_of_reaches_the_flow(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "home"), *LOGGERS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    sent = [tuple(each) for each in json.loads(done.stdout.splitlines()[-1])]
    assert sent == [
        ("csr", "INFO", "detail"),
        ("csr", "WARNING", "beware"),
        ("vllm.v1.core", "WARNING", "beware"),
        ("trl.trainer", "WARNING", "beware"),
        ("transformers.modeling", "WARNING", "beware"),
        ("peft.tuners", "WARNING", "beware"),
        ("py.warnings", "WARNING", "<string>:32: UserWarning: outdated"),
    ]
    assert done.stderr.count("outdated") == 1  # and it is still told on the terminal, once
