"""How many engines a machine carries at once: slots of a Prefect concurrency limit.

Runs that share a server share the limit, whichever deployment or worker they come from. A slot is a
lease: it comes back by itself when the process that holds it dies.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from flows.server import is_own_server

logger = logging.getLogger("csr")

ENGINE_LIMIT = "csr-engine"

_LEASE_SECONDS = 60.0
_SECONDS_BEFORE_TOLD = 10.0


@contextmanager
def engine_slot() -> Iterator[None]:
    """Wait for a slot and hold it inside.

    A server that lives for one run alone has nobody to share with.
    """
    if is_own_server():
        yield
        return
    from prefect.concurrency.sync import concurrency

    with ExitStack() as stack:
        take = partial(concurrency, ENGINE_LIMIT, lease_duration=_LEASE_SECONDS, strict=False)
        try:
            stack.enter_context(take(timeout_seconds=_SECONDS_BEFORE_TOLD))
        except TimeoutError:
            logger.info("waiting: all slots of the limit %s are taken", ENGINE_LIMIT)
            stack.enter_context(take())
        yield


def ensure_engine_limit() -> None:
    """Make the limit, of one slot, where there is none; one that is there keeps its size."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(ENGINE_LIMIT)
        except ObjectNotFound:
            limit = GlobalConcurrencyLimitCreate(name=ENGINE_LIMIT, limit=1)
            client.create_global_concurrency_limit(limit)
