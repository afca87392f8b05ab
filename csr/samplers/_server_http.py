"""One endpoint over HTTP. What it answers is not trusted: bounded, checked, and quoted with care.

No redirect is followed, so requests and key go nowhere but to the URL that was given. A proxy of
the environment is used for other machines only, never for this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from csr.errors import ConfigError, ModelError, shown

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Of one answer: 8 candidates of 1,000 tokens with 20 alternatives each are about 10 MB."""
_MAX_QUOTED_CHARACTERS = 300
_CONNECT_SECONDS = 10.0
_KEPT_SECONDS = 2.0
"""Of a connection without requests. `vllm serve` drops it after 5, and a request that meets that
moment is lost."""
_LOOK_SECONDS = 10.0
"""For /health, /v1/models and /metrics, which a busy server answers too."""
_TRANSIENT = frozenset({408, 425, 429, 502, 503, 504})
A = TypeVar("A", bound=BaseModel)


class Unavailable(Exception):
    """The endpoint could not be asked, or not now: another time, or another endpoint, may do."""


class Slow(Unavailable):
    """The endpoint did not answer in time: it hangs, or has too much to do."""


class ServerFault(Unavailable):
    """The endpoint failed on this request (status 500): it or the request is at fault."""


class PolicyGone(Unavailable):
    """The endpoint answers, and no longer knows the policy (status 404)."""


class Endpoint:
    """A base URL, what runs there, and how it is doing. Belongs to one event loop."""

    def __init__(self, url: str, *, api_key: str | None, timeout_seconds: float) -> None:
        self.url = url
        self.served = ""
        """The name under which it serves the policy."""
        self.num_running = 0
        self.aside: str | None = None
        """Why it is not asked any more; None while it is."""
        self._api_key = api_key
        self._timeout_seconds = timeout_seconds
        headers = {"Accept-Encoding": "identity"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        try:
            self._client = httpx.AsyncClient(
                headers=headers,
                follow_redirects=False,
                trust_env=not is_loopback(url),
                timeout=httpx.Timeout(timeout_seconds, connect=_CONNECT_SECONDS, pool=None),
                limits=httpx.Limits(max_connections=None, keepalive_expiry=_KEPT_SECONDS),
            )
        except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
            raise ConfigError(
                f"No connection to {url} can be set up ({type(error).__name__}: {error}). Look at "
                "the environment's proxies (ALL_PROXY, HTTPS_PROXY, HTTP_PROXY; SOCKS is not "
                "supported) and certificates (SSL_CERT_FILE, SSL_CERT_DIR)."
            ) from None

    async def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer of the route that takes token ids. See `_asked` for what it raises."""
        return self.parsed(await self.post("/inference/v1/generate", body))

    async def post(self, path: str, body: dict[str, Any]) -> bytes:
        """The answer to a request that may take long."""
        return await self._asked("POST", path, self._timeout_seconds, json.dumps(body).encode())

    async def get(self, path: str) -> bytes:
        """What a quick question is answered with."""
        return await self._asked("GET", path, min(_LOOK_SECONDS, self._timeout_seconds))

    async def close(self) -> None:
        """Drop all connections, and with them what still runs."""
        await self._client.aclose()

    def parsed(self, data: bytes) -> dict[str, Any]:
        """An answer as a JSON object. ModelError where it is none."""
        try:
            value = json.loads(data, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ModelError(
                f"{self.url} answered with what is not JSON ({type(error).__name__}): "
                f"{self._quoted(data)}. Check that it is `vllm serve`, and no other service."
            ) from None
        if not isinstance(value, dict):
            raise ModelError(
                f"{self.url} answered with JSON that is no object: {self._quoted(data)}. "
                "Check that it is `vllm serve`, and no other service."
            )
        return value

    def validated(self, kind: type[A], value: Any) -> A:
        """A JSON value as a model of the answer. ModelError where it has another form."""
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = shown(".".join(map(str, first["loc"])), 100)
            raise ModelError(
                f"{self.url} answered in an unknown form ({place}: {first['msg'][:100]}). This "
                "version of its vLLM does not fit; install the pinned one there."
            ) from None

    async def _asked(
        self, method: str, path: str, timeout_seconds: float, body: bytes | None = None
    ) -> bytes:
        """The body of an answer with status 200.

        Unavailable where asking again may do; ConfigError or ModelError where it will not.
        """
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            # httpx limits the time between two bytes; a server that trickles would never end.
            async with (
                asyncio.timeout(timeout_seconds),
                self._client.stream(method, self.url + path, content=body, headers=headers) as got,
            ):
                data = await self._read(got)
                status = got.status_code
        except (TimeoutError, httpx.ReadTimeout):
            raise Slow(f"no answer within {timeout_seconds:g} s") from None
        except httpx.TransportError as error:
            raise Unavailable(self._described(error)) from None
        if status != 200:
            self._raise_for(status, path, data)
        return data

    async def _read(self, answer: httpx.Response) -> bytes:
        data = bytearray()
        async for chunk in answer.aiter_raw():
            data += chunk
            if len(data) > MAX_ANSWER_BYTES:
                raise ModelError(
                    f"{self.url} answered with more than {MAX_ANSWER_BYTES:,} bytes, and the rest "
                    "was not read. Check that it is `vllm serve`; or use fewer candidates."
                )
        return bytes(data)

    def _raise_for(self, status: int, path: str, data: bytes) -> None:
        said = self._quoted(data)
        if status in _TRANSIENT:
            raise Unavailable(f"status {status}: {said}")
        if status == 404 and path.startswith("/inference"):
            raise PolicyGone(f"status 404: {said}")
        if status >= 500:
            raise ServerFault(f"status {status}: {said}")
        if status in (401, 407):
            raise ConfigError(
                f"{self.url} refuses the API key (status {status}). Name the environment variable "
                "that holds it in the sampler's api_key_env, and set that."
            )
        if status == 403 and path.startswith("/inference"):
            raise ConfigError(
                f"{self.url} does not offer the route for token ids (status 403: {said}). Start it "
                "with `vllm serve MODEL --enable-scale-out`."
            )
        if 300 <= status < 400:
            raise ConfigError(
                f"{self.url} answers with a redirect (status {status}), which is not followed. "
                "Give the address that it leads to."
            )
        raise ModelError(
            f"{self.url} refused {path} (status {status}): {said}. Asking again would not help."
        )

    def _described(self, error: Exception) -> str:
        return f"{type(error).__name__}: {self._quoted(str(error).encode())}"

    def _quoted(self, data: bytes) -> str:
        """What a server said, as a message shows it: short, one line, and never the key."""
        text = data[: 4 * _MAX_QUOTED_CHARACTERS].decode(errors="replace")
        # What is no error of vLLM's is shown as it is.
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            text = str(json.loads(data[:65536])["error"]["message"])
        if self._api_key:
            text = text.replace(self._api_key, "***")
        return shown(text, _MAX_QUOTED_CHARACTERS)


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine by itself."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
