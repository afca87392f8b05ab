"""Several pieces of work at once, in threads that only wait for other processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import copy_context


def each_at_once(
    do: Callable[[int], object],
    numbers: Iterable[int],
    num_at_once: int,
    stop: Callable[[], object] = lambda: None,
) -> None:
    """Call `do` for each number; with one at a time in this thread, in order.

    When one fails, those that run come to their end, and none is begun any more. When this thread
    is interrupted, `stop` is to make those that run end soon. A thread sees the caller's context,
    such as the flow that it works for.
    """
    if num_at_once == 1:
        for number in numbers:
            do(number)
        return
    with ThreadPoolExecutor(max_workers=num_at_once, thread_name_prefix="shard") as pool:
        running = [pool.submit(copy_context().run, do, number) for number in numbers]
        try:
            for ended in as_completed(running):
                ended.result()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, Exception):
                stop()
            raise
