"""A stand-in for `vllm serve` on a real socket: its routes, a made-up voice, faults on order."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[[str, dict[str, Any]], tuple[int, bytes] | None]
"""(path, request) -> what is answered instead of the proper answer; None leaves that."""

GENERATE = "/inference/v1/generate"
IMAGE_ID, NUM_IMAGE_TOKENS = 4, 16
EOS_ID, STOP_ID = 2, 18
WORD_IDS = (264, 267, 309, 313, 314, 349, 350, 351)


class FakeVllm:
    """One endpoint. Its words depend on seeds alone, its log-probabilities on the voice too."""

    def __init__(self, root: str = "/models/base", voice: str = "base") -> None:
        self.root, self.voice = root, voice
        self.adapters: dict[str, str] = {}
        self.fault: Fault = lambda path, body: None
        self.free = threading.Event()
        """While it is not set, requests for tokens wait."""
        self.free.set()
        self.max_model_len = 512
        self.asked: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        """Path, request and headers of all that came."""
        self.num_running = self.most_running = 0
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def generated(self) -> list[dict[str, Any]]:
        """The requests for tokens."""
        return [body for path, body, _ in self.asked if path == GENERATE]

    def start(self) -> FakeVllm:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *given: object) -> None:
                pass

            def do_GET(self) -> None:
                self.answer({})

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                self.answer(json.loads(self.rfile.read(length) or b"{}"))

            def answer(self, body: dict[str, Any]) -> None:
                with contextlib.suppress(ConnectionError):
                    status, data = fake.handle(self.path, body, dict(self.headers))
                    if status == 0:  # as a server that is killed
                        self.close_connection = True
                        return
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    if 300 <= status < 400:
                        self.send_header("Location", data.decode())
                    self.end_headers()
                    self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Nobody listens from here on; what is running gets no answer."""
        if self._server is not None:
            self.fault = lambda path, body: (0, b"")
            self.free.set()
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def handle(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, bytes]:
        with self._lock:
            self.asked.append((path, body, headers))
            self.num_running += path == GENERATE
            self.most_running = max(self.most_running, self.num_running)
        try:
            if path == GENERATE:
                self.free.wait(60)
            found = self.fault(path, body)
            return found if found is not None else self.proper(path, body)
        finally:
            with self._lock:
                self.num_running -= path == GENERATE

    def proper(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        if path == "/health":
            return 200, b""
        if path == "/metrics":
            return 200, b'vllm:cache_config_info{block_size="32",num_gpu_blocks="100"} 1.0\n'
        if path == "/v1/models":
            return 200, json.dumps({"data": self.cards()}).encode()
        if path == "/v1/load_lora_adapter":
            if body["lora_name"] in self.adapters:
                return told(400, "has already been loaded")
            self.adapters[body["lora_name"]] = body["lora_path"]
            return 200, b"Success"
        if path == GENERATE:
            if body["model"] not in {card["id"] for card in self.cards()}:
                return told(404, f"The model `{body['model']}` does not exist.")
            return 200, json.dumps(self.generate(body)).encode()
        return 404, b'{"detail":"Not Found"}'

    def cards(self) -> list[dict[str, Any]]:
        base = {"id": "base", "root": self.root, "parent": None}
        return [{**base, "max_model_len": self.max_model_len}] + [
            {"id": name, "root": path, "parent": "base", "max_model_len": None}
            for name, path in self.adapters.items()
        ]

    def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        params = body["sampling_params"]
        prompt: list[int] = []
        for token_id in body["token_ids"]:
            seen = token_id == IMAGE_ID and "content_parts" in body
            prompt += [token_id] * (NUM_IMAGE_TOKENS if seen else 1)
        voice = self.voice if body["model"] == "base" else f"{self.voice} {body['model']}"
        choices = [self.choice(voice, prompt, params, index) for index in range(params["n"])]
        answer = {"prompt_token_ids": prompt, "choices": choices, "usage": {}}
        if "prompt_logprobs" in params:
            rows = [
                {str(token_id): {"logprob": logprob(voice, prompt[:place], token_id)}}
                for place, token_id in enumerate(prompt)
            ]
            answer["prompt_logprobs"] = [None, *rows[1:]]
        return answer

    def choice(
        self, voice: str, prompt: list[int], params: dict[str, Any], index: int
    ) -> dict[str, Any]:
        ids: list[int] = []
        finish, stop = "length", None
        while len(ids) < params["max_tokens"]:
            drawn = number(params.get("seed"), index, len(prompt), len(ids))
            if drawn % 7 == 0 and ids:
                ids.append(EOS_ID)
                finish = "stop"
                break
            ids.append(STOP_ID if drawn % 5 == 0 else WORD_IDS[drawn % len(WORD_IDS)])
            if ids[-1] == STOP_ID and "." in params.get("stop", ()):
                finish, stop = "stop", "."
                break
        content = []
        for place, token_id in enumerate(ids):
            before = [*prompt, *ids[:place]]
            alternatives = [token_id, *(each for each in WORD_IDS if each != token_id)]
            content.append(
                {
                    "token_id": token_id,
                    "logprob": logprob(voice, before, token_id),
                    "top_logprobs": [
                        {"token_id": each, "logprob": logprob(voice, before, each)}
                        for each in alternatives[: max(params.get("logprobs", 0), 1)]
                    ],
                }
            )
        return {
            "index": index, "finish_reason": finish, "stop_reason": stop, "token_ids": ids,
            "logprobs": {"content": content},
        }  # fmt: skip


def told(status: int, message: str) -> tuple[int, bytes]:
    """An error as vLLM tells it."""
    return status, json.dumps({"error": {"message": message}}).encode()


def number(*given: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(given).encode()).digest()[:4], "big")


def logprob(voice: str, before: list[int], token_id: int) -> float:
    return -0.1 - number(voice, before, token_id) / 2**31


@contextlib.contextmanager
def serving(*fakes: FakeVllm) -> Iterator[tuple[FakeVllm, ...]]:
    """The fakes while they listen."""
    for fake in fakes:
        fake.start()
    try:
        yield fakes
    finally:
        for fake in fakes:
            fake.stop()
