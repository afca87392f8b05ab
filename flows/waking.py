"""How a run goes on once people have judged enough: by itself where a flow run waits for that."""

from __future__ import annotations

import logging
import os

from storage.attempt import AttemptDir

logger = logging.getLogger("csr")


def go_on(attempt: AttemptDir) -> str:
    """Wake the flow runs that wait for this attempt's verdicts; what to tell people."""
    by_hand = f"{attempt.id} goes on when the command that waits for it is given again."
    if not os.environ.get("PREFECT_API_URL"):
        return by_hand
    # Prefect takes seconds to import, and reads its settings then.
    import httpx
    from prefect.exceptions import PrefectException

    from flows.suspending import wake

    try:
        names = wake(str(attempt.id))
    except (httpx.HTTPError, PrefectException, OSError) as error:
        logger.warning("no flow run could be woken: %s", error)
        return f"The Prefect server did not answer, so nothing goes on by itself. {by_hand}"
    return f"The flow run goes on by itself: {', '.join(names)}." if names else by_hand
