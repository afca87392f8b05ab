"""The stage process with a fault in its scripted sampler: `python -m tests.faulty_worker ...`.

CSR_FAULT is JSON: the first `times` processes that come so far do `act` in the middle of the
search for the prompt `prompt_id`. Each writes to `journal` that it starts ("start"), how many
prompts a search was given ("search 2"), and that it is about to act ("kill").
"""

import builtins
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import csr.errors
from csr.samplers.scripted import ScriptedSampler
from csr.sources.csr import CSRSource
from flows.stage_worker import main

WORKER = (sys.executable, "-P", "-u", "-m", "tests.faulty_worker")
MESSAGE = "It was the fault's doing."


def write(journal: Path, line: str) -> None:
    with journal.open("a") as file:
        file.write(f"{line}\n")


def act(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        time.sleep(600)
    raise getattr(csr.errors, how, getattr(builtins, how, None))(MESSAGE)


def install(prompt_id: str, how: str, times: int, journal: Path) -> None:
    write(journal, "start")
    sample_steps, generate = ScriptedSampler.sample_steps, CSRSource.generate

    def faulty(self: Any, requests: Any, settings: Any) -> Any:
        searching = settings.num_candidates > 1  # and not measuring
        half_way = any(r.prefix and r.prompt.prompt_id == prompt_id for r in requests)
        if searching and half_way and journal.read_text().split("\n").count(how) < times:
            write(journal, how)
            act(how)
        return sample_steps(self, requests, settings)

    def noted(self: Any, prompts: Any, tools: Any) -> Any:
        write(journal, f"search {len(prompts)}")
        return generate(self, prompts, tools)

    ScriptedSampler.sample_steps = faulty  # type: ignore[method-assign]
    CSRSource.generate = noted  # type: ignore[method-assign]


if __name__ == "__main__":
    fault = json.loads(os.environ["CSR_FAULT"])
    install(fault["prompt_id"], fault["act"], fault["times"], Path(fault["journal"]))
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
