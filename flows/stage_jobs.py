"""One stage as a job for another process: what it is asked, and what it answers."""

from __future__ import annotations

import traceback

from flows.context import open_attempt
from flows.iteration import do_stage
from flows.stage_wire import describe_error


def done_job(
    home: str, attempt_id: str, stage: str, shard: int | None, num_waves: int
) -> dict[str, str] | None:
    """Do a stage here. None, or what went wrong, whose traceback is printed."""
    number = () if shard is None else (shard,)
    try:
        do_stage(open_attempt(home, attempt_id), stage, *number, num_waves=num_waves)
    except Exception as error:
        traceback.print_exc()
        return describe_error(error)
    return None
