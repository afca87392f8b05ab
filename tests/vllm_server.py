"""Real `vllm serve` processes on the CPU, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.ports import free_port

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 300.0
"""A start takes about a minute on two idle cores."""


class VllmServer:
    """One server of a checkpoint on loopback, in a process group of its own."""

    def __init__(self, model: Path, log: Path, *options: str) -> None:
        self.port = free_port()
        self._log = log
        command = [
            sys.executable, str(ROOT / "deploy" / "vllm_cpu_serve.py"), str(model),
            "--host", "127.0.0.1", "--port", str(self.port), *options,
        ]  # fmt: skip
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        }
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._healthy():
            assert self._process.poll() is None, self._log.read_text()[-3000:]
            assert time.monotonic() < deadline, self._log.read_text()[-3000:]
            time.sleep(0.5)

    def kill(self) -> None:
        """SIGKILL to all of its processes. Safe to call twice."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", trust_env=False, timeout=5).status_code == 200
        except httpx.TransportError:
            return False
