"""Serves the review page on this machine, to whoever has the token that was printed with its URL.

The token stands in the address once; a cookie takes its place, so that it lands in no log and no
bookmark. It is asked for with every request: gradio's own ways to call functions and to fetch
files are behind it too.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlencode

from csr.errors import CSRError, EnvironmentFault
from flows.review import Desk
from flows.review_page import TEMPLATES, Page, build_page
from flows.waking import go_on

Scope = dict[str, Any]

_SECURITY_HEADERS = {
    # gradio's page has scripts in it and makes functions of its templates; nothing may come
    # from, or go to, another machine.
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        b"style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
        b"connect-src 'self'; manifest-src 'self'; base-uri 'self'; form-action 'none'; "
        b"frame-ancestors 'none'"
    ),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"cache-control": b"no-store",
}
_WATCH_SECONDS = 10.0


def serve_page(desk: Desk, port: int, told: Callable[[str], object]) -> None:
    """Serve until stopped; `told` gets the URL. EnvironmentFault where the port is taken."""
    import uvicorn

    listening = _listen(port)
    port = listening.getsockname()[1]
    token = secrets.token_urlsafe(24)
    config = uvicorn.Config(review_app(desk, token, port), log_level="warning", lifespan="on")
    told(f"http://127.0.0.1:{port}/?{urlencode({'token': token})}")
    stopped = threading.Event()
    threading.Thread(target=_watch, args=(desk, stopped), daemon=True).start()
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        stopped.set()


def review_app(desk: Desk, token: str, port: int) -> Any:
    """The page as an ASGI application that answers nobody without the token."""
    import gradio as gr
    from fastapi import FastAPI

    page = Page(desk, lambda: go_on(desk.attempt))
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        build_page(page, f"Review {desk.attempt_id}"),
        path="/",
        server_name="127.0.0.1",
        server_port=port,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=(TEMPLATES / "review.css").read_text(),
        head=f"<script>{(TEMPLATES / 'review.js').read_text()}</script>",
    )
    return TokenGate(app, token, cookie=f"csr_review_{port}")


class TokenGate:
    """Passes on the requests that bring the token; 401 without one, 403 with a wrong one."""

    def __init__(self, app: Any, token: str, cookie: str) -> None:
        self._app, self._token, self._cookie = app, token, cookie

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """One request, or the application's own start and end."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif (given := _query_token(scope)) is not None:
            await self._enter(scope, send, given)
        elif (given := _cookie_token(scope, self._cookie)) is None:
            await _answer(send, HTTPStatus.UNAUTHORIZED, "Open the URL that csr review printed.")
        elif not self._is_right(given):
            await _refuse(send)
        else:
            await self._app(scope, receive, _with_headers(send))

    async def _enter(self, scope: Scope, send: Any, given: str) -> None:
        """Exchange the token in the address for a cookie."""
        if not self._is_right(given):
            await _refuse(send)
            return
        rest = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        rest.pop("token")
        cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
        location = f"/?{urlencode(rest, doseq=True)}" if rest else "/"
        headers = {b"set-cookie": cookie.encode(), b"location": location.encode()}
        await _answer(send, HTTPStatus.SEE_OTHER, "", headers)

    def _is_right(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._token.encode())


def _query_token(scope: Scope) -> str | None:
    given = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get("token")
    return given[0] if given else None


def _cookie_token(scope: Scope, name: str) -> str | None:
    for key, value in scope["headers"]:
        if key == b"cookie":
            try:
                found = SimpleCookie(value.decode("latin-1")).get(name)
            except CookieError:
                continue
            if found is not None:
                return found.value
    return None


async def _refuse(send: Any) -> None:
    text = "This token is wrong or of an earlier start. Open the URL that csr review printed last."
    await _answer(send, HTTPStatus.FORBIDDEN, text)


async def _answer(
    send: Any, status: HTTPStatus, text: str, headers: dict[bytes, bytes] | None = None
) -> None:
    kind = {b"content-type": b"text/plain; charset=utf-8"}
    sent: Iterable[tuple[bytes, bytes]] = (kind | _SECURITY_HEADERS | (headers or {})).items()
    await send({"type": "http.response.start", "status": int(status), "headers": list(sent)})
    await send({"type": "http.response.body", "body": text.encode()})


def _with_headers(send: Any) -> Any:
    async def sending(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message["headers"] if pair[0].lower() not in _SECURITY_HEADERS]
            message = {**message, "headers": [*kept, *_SECURITY_HEADERS.items()]}
        await send(message)

    return sending


def _listen(port: int) -> socket.socket:
    """Held from here on: who opens the URL at once waits, and is not refused."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen()
    except OSError as error:
        raise EnvironmentFault(
            f"Port {port} on this machine cannot be used for the page ({error.strerror}). Choose "
            "another with --port; 0 takes a free one."
        ) from None
    return listening


def _watch(desk: Desk, stopped: threading.Event) -> None:
    """A flow run may begin to wait just after the last verdict: somebody must look again."""
    while not stopped.wait(_WATCH_SECONDS):
        with suppress(CSRError):  # a damaged file is told on the page
            if desk.standing("", desk.verdicts.read()).is_reached and not desk.is_closed():
                go_on(desk.attempt)
