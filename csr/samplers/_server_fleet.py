"""Endpoints as one engine: spreads requests, tries again, sets aside what fails, takes it back.

Everything here runs in one event loop in a thread of its own, so nothing is locked; callers hand
in requests and get futures. Where a request runs depends on the clock; its answer does not, as far
as the endpoints compute alike.

A request prefers the endpoint that its key has always had, since that has its prompt in the cache
(rendezvous hashing: when an endpoint is lost, only its own keys move). It goes to another one where
its own has more than its share of what runs, or no room.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import math
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from csr.errors import CSRError, EngineLost, ModelError
from csr.samplers._server_http import Endpoint, PolicyGone, ServerFault, Slow, Unavailable

logger = logging.getLogger(__name__)

_LARGEST_SHARE = 1.25
"""Of the mean number of running requests, before a prompt's own endpoint is passed over."""
_FIRST_DELAY_SECONDS = 0.5
_LONGEST_DELAY_SECONDS = 30.0
LOOK_AGAIN_SECONDS = 10.0
"""Between two looks at an endpoint that was set aside."""
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Call:
    """A request that is waiting, running or answered."""

    key: str
    """Requests with equal keys prefer the same endpoint."""
    payload: dict[str, Any]
    """All of the request but the model's name, which is each endpoint's own."""
    future: Future[tuple[Endpoint, dict[str, Any]]] = field(default_factory=Future)
    """Who answered, and what. CSRError, or EngineLost where no endpoint is left."""
    task: asyncio.Task[None] | None = None


class Fleet:
    """The endpoints of one sampler."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        max_running_requests: int,
        num_retries: int,
        counts: dict[str, int],
    ) -> None:
        """`counts` is added to, under `num_retries` and `num_set_aside`."""
        self.endpoints = list(endpoints)
        self._counts = counts
        self._max_running = max_running_requests
        delays = [_FIRST_DELAY_SECONDS * 2**number for number in range(num_retries)]
        self._delays = [min(each, _LONGEST_DELAY_SECONDS) for each in delays]
        self._pending: deque[Call] = deque()
        self._watchers: dict[Endpoint, asyncio.Task[None]] = {}
        self._admit: Callable[[Endpoint], Awaitable[None]] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="endpoints", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something in the loop, from outside of it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def submit(self, call: Call) -> None:
        """Hand in a request without waiting."""
        self._loop.call_soon_threadsafe(self._enter, call)

    def abandon(self, calls: Sequence[Call]) -> None:
        """Give up requests; those that run are broken off, which the server notices."""
        if calls and not self._loop.is_closed():
            self.run(self._abandon(calls))

    async def begin(
        self,
        load: Callable[[Endpoint], Awaitable[T]],
        admit: Callable[[Endpoint], Awaitable[None]],
    ) -> dict[Endpoint, T]:
        """What `load` gives for each endpoint that can be asked; the others are set aside.

        `admit` is what one of those must pass before it is asked again. EngineLost where none is
        left, and any CSRError of `load`.
        """
        for watcher in self._watchers.values():
            watcher.cancel()
        self._watchers.clear()
        self._admit = admit
        loads = (self._loaded(each, load) for each in self.endpoints)
        found = await asyncio.gather(*loads, return_exceptions=True)
        loaded = {}
        for endpoint, value in zip(self.endpoints, found, strict=True):
            if isinstance(value, Unavailable):
                self._set_aside(endpoint, str(value))
            elif isinstance(value, BaseException):
                raise value
            else:
                endpoint.aside = None
                loaded[endpoint] = value
        if not loaded:
            raise self._lost()
        return loaded

    def close(self) -> None:
        """Break off everything and end the thread."""
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def num_in_use(self) -> int:
        """Endpoints that are asked."""
        return sum(each.aside is None for each in self.endpoints)

    @property
    def num_slots(self) -> int:
        """Requests that may run at once while no endpoint is set aside."""
        return self._max_running * len(self.endpoints)

    async def _loaded(self, endpoint: Endpoint, load: Callable[[Endpoint], Awaitable[T]]) -> T:
        for delay in self._delays:
            with contextlib.suppress(Unavailable):
                return await load(endpoint)
            await asyncio.sleep(delay)
        try:
            return await load(endpoint)
        except PolicyGone as error:
            raise ModelError(
                f"{endpoint.url} has no route for token ids ({error}). Start it by the pinned vLLM "
                "as `vllm serve MODEL --enable-scale-out`; a gateway before it must pass "
                "/inference on."
            ) from None
        except ServerFault as error:
            raise ModelError(f"{endpoint.url} fails on a first request ({error}).") from None

    def _enter(self, call: Call) -> None:
        self._pending.append(call)
        self._dispatch()

    def _dispatch(self) -> None:
        """Start as many waiting requests as may run, the oldest first."""
        if not self.num_in_use:
            while self._pending:
                _settle(self._pending.popleft(), error=self._lost())
        while self._pending and (endpoint := self._chosen(self._pending[0].key)):
            call = self._pending.popleft()
            endpoint.num_running += 1
            call.task = self._loop.create_task(self._work(call, endpoint))
            # Not at the end of the task's own code, which one that is given up early never enters.
            call.task.add_done_callback(functools.partial(self._ended, call, endpoint))

    def _chosen(self, key: str) -> Endpoint | None:
        live = [each for each in self.endpoints if each.aside is None]
        free = [each for each in live if each.num_running < self._max_running]
        if not free:
            return None
        num_all = sum(each.num_running for each in live) + 1
        fair = math.ceil(_LARGEST_SHARE * num_all / len(live))
        ranked = sorted(free, key=lambda each: _weight(each.url, key), reverse=True)
        fewest = min(free, key=lambda each: each.num_running)
        return next((each for each in ranked if each.num_running < fair), fewest)

    async def _work(self, call: Call, endpoint: Endpoint) -> None:
        """One request at one endpoint, tried as often as it may be; else it waits for another."""
        try:
            answer = await self._tried(call, endpoint)
            if answer is not None:
                _settle(call, (endpoint, answer))
            else:
                self._pending.appendleft(call)
        except Exception as error:  # whatever it is belongs to whoever asked
            _settle(call, error=error)

    def _ended(self, call: Call, endpoint: Endpoint, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            call.future.cancel()
        endpoint.num_running -= 1
        self._dispatch()

    async def _tried(self, call: Call, endpoint: Endpoint) -> dict[str, Any] | None:
        """The answer; None where the endpoint was set aside."""
        body = {**call.payload, "model": endpoint.served}
        for delay in (*self._delays, None):
            if endpoint.aside is not None:
                return None  # another request found out first
            gone, reason = delay is None, ""
            try:
                return await endpoint.generate(body)
            except PolicyGone as error:
                gone, reason = True, str(error)
            except ServerFault as error:
                gone, reason = not await self._healthy(endpoint), str(error)
                if delay is None and not gone:
                    raise ModelError(
                        f"{endpoint.url} failed on a request {len(self._delays) + 1} times and is "
                        f"healthy otherwise ({error}). Its log says why."
                    ) from None
            except Slow as error:
                gone, reason = gone or not await self._healthy(endpoint), str(error)
            except Unavailable as error:
                reason = str(error)
            if gone:
                self._set_aside(endpoint, reason)
                return None
            self._counts["num_retries"] += 1
            await asyncio.sleep(delay or 0.0)
        raise AssertionError("the last try returns or raises")

    async def _healthy(self, endpoint: Endpoint) -> bool:
        try:
            await endpoint.get("/health")
        except (Unavailable, CSRError):
            return False
        return True

    def _set_aside(self, endpoint: Endpoint, reason: str) -> None:
        if endpoint.aside is None:
            self._counts["num_set_aside"] += 1
            logger.warning(
                "The endpoint %s is set aside (%s). Others get its requests; it is asked again "
                "when it serves the policy.",
                endpoint.url,
                reason,
            )
        endpoint.aside = reason
        if endpoint not in self._watchers:
            self._watchers[endpoint] = self._loop.create_task(self._watch(endpoint))
        self._dispatch()

    async def _watch(self, endpoint: Endpoint) -> None:
        """Take an endpoint back when it is healthy and serves the policy."""
        assert self._admit is not None
        told = ""
        while True:
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            try:
                await endpoint.get("/health")
                await self._admit(endpoint)
                break
            except Unavailable:
                continue
            except Exception as error:  # nobody else would tell, and it may pass
                if str(error) != told:
                    logger.warning("The endpoint %s stays aside: %s", endpoint.url, error)
                told = str(error)
        endpoint.aside = None
        del self._watchers[endpoint]
        logger.warning("The endpoint %s serves the policy again.", endpoint.url)
        self._dispatch()

    def _lost(self) -> EngineLost:
        told = "; ".join(f"{each.url}: {each.aside}" for each in self.endpoints)
        return EngineLost(
            f"None of the sampler's {len(self.endpoints)} endpoints can be asked ({told}). Their "
            "logs say why. Start them again, then run the same command: what is finished stays."
        )

    async def _abandon(self, calls: Sequence[Call]) -> None:
        given_up = set(calls)
        for call in [each for each in self._pending if each in given_up]:
            self._pending.remove(call)
            call.future.cancel()
        await _cancelled([call.task for call in calls if call.task is not None])

    async def _stop(self) -> None:
        for call in self._pending:
            call.future.cancel()
        self._pending.clear()
        own = asyncio.current_task()
        await _cancelled([task for task in asyncio.all_tasks() if task is not own])
        for endpoint in self.endpoints:
            await endpoint.close()


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _settle(
    call: Call,
    value: tuple[Endpoint, dict[str, Any]] | None = None,
    error: Exception | None = None,
) -> None:
    if call.future.cancelled():
        return
    if error is not None:
        call.future.set_exception(error)
    else:
        assert value is not None
        call.future.set_result(value)


def _weight(url: str, key: str) -> bytes:
    return hashlib.sha256(f"{url}\n{key}".encode()).digest()
