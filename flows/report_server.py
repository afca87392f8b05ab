"""The runs' reports over HTTP on this machine, so that the flow UI can link to them.

A browser opens no file:// link from a page that came over HTTP. Nothing but the `report.html` of
a run below one home is served: no listing, no other file, nothing behind a symbolic link.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from csr.errors import EnvironmentFault
from flows.forms import home_of
from flows.report import CONTENT_SECURITY_POLICY
from storage.attempt import RUN_ID_PATTERN
from storage.run_store import RunStore

logger = logging.getLogger("csr")

REPORT_URL = "CSR_REPORT_URL"
"""Where the reports of the home in CSR_HOME are found: `csr serve` sets it, a user may."""

_REPORT_PATH = re.compile(rf"/(?P<run>{RUN_ID_PATTERN})/report\.html")
_USABLE_URL = re.compile(r"https?://[^\s<>\"'`()]+")
_OUR_HOSTS = ("127.0.0.1", "localhost")


def report_url(home: Path, run_id: str) -> str | None:
    """Where a browser finds the run's report; None where that is not known."""
    url = os.environ.get(REPORT_URL)
    if not url or home_of(None).resolve() != home.resolve():
        return None
    if not _USABLE_URL.fullmatch(url):
        logger.warning("%s=%r is no http address, so no report is linked", REPORT_URL, url)
        return None
    return f"{url.rstrip('/')}/{run_id}/report.html"


def find_report(home: Path, path: str) -> Path | None:
    """The file that a request's path names; None for anything but a run's report."""
    match = _REPORT_PATH.fullmatch(path)
    if match is None or not RunStore(home).has_run(match["run"]):
        return None
    file = home.resolve() / match["run"] / "report.html"
    return file if file.is_file() and file.resolve() == file else None


@contextmanager
def serve_reports(home: Path, port: int) -> Iterator[str]:
    """Serve the reports of the runs below `home` to this machine; the address.

    EnvironmentFault where the port is taken.
    """
    try:
        server = _ReportServer(home, port)
    except OSError as error:
        raise EnvironmentFault(
            f"Port {port} on this machine cannot be used for the reports ({error.strerror}). "
            "It is the one after the flow UI's: choose another with --port."
        ) from None
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class _ReportServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of a report; every other method has no handler and is refused."""

    server: _ReportServer
    server_version, sys_version = "csr", ""
    timeout = 30

    def do_GET(self) -> None:
        page = self._page()
        if page is not None:
            self.wfile.write(page)

    def do_HEAD(self) -> None:
        self._page()

    def _page(self) -> bytes | None:
        """Answer with the headers; the report, or None where there is none."""
        # Another name for this machine is a web site that tries to read what is here.
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in _OUR_HOSTS:
            self.send_error(HTTPStatus.FORBIDDEN)
            return None
        file = find_report(self.server.home, self.path)
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        page = file.read_bytes()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")  # the next iteration renews it
        self.end_headers()
        return page

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what a person opens is no event of a run."""
