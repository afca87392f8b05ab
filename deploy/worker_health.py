"""Exit status 0 where the server has heard from this machine's worker lately, 1 otherwise.

The health check of the worker's container. A worker that hangs, or has lost the server, still has a
process: only the server can tell. Standard library only, since it runs once a minute.
"""

from __future__ import annotations

import base64
import json
import os
import platform
import sys
import urllib.request
from typing import Any

WORK_POOL = "csr"


def main() -> int:
    """Ask the server of PREFECT_API_URL."""
    try:
        online = is_online(workers(), f"csr-{platform.node()}")
    except (OSError, ValueError, KeyError) as error:
        print(f"the server gave no answer: {error!r}", file=sys.stderr)
        return 1
    return 0 if online else 1


def is_online(workers: list[dict[str, Any]], name: str) -> bool:
    """Whether a worker of that name polls; the server knows each by its heartbeats."""
    return any(each["name"] == name and each["status"] == "ONLINE" for each in workers)


def workers() -> list[dict[str, Any]]:
    """The work pool's workers, as the server lists them."""
    url = f"{os.environ['PREFECT_API_URL']}/work_pools/{WORK_POOL}/workers/filter"
    headers = {"Content-Type": "application/json"}
    if auth := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
    request = urllib.request.Request(url, data=b"{}", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found


if __name__ == "__main__":
    sys.exit(main())
