"""Steps as a stream from endpoints: each request is on its way as soon as it is asked."""

from __future__ import annotations

import functools
from collections import deque
from concurrent.futures import Future
from itertools import islice
from queue import SimpleQueue
from typing import Any

from csr.protocols import StepSettings
from csr.samplers._server_fleet import Call
from csr.samplers._server_policy import Job, RemotePolicy
from csr.samplers._step_rounds import Round, StepRounds, num_taken
from csr.step_streams import Steps
from csr.types import StepRequest


class ServerSteps:
    """Implements `csr.step_streams.StepStream`.

    Which requests end first depends on machines and networks. So `take` goes by the order in which
    they were added: it returns the oldest ones, once all of those have ended.
    """

    works_in_batches = False

    def __init__(self, policy: RemotePolicy, settings: StepSettings) -> None:
        self._policy, self._fleet = policy, policy.fleet
        self._rounds = StepRounds(policy, settings)
        self._tickets: deque[int] = deque()
        """Those not taken yet, the oldest first."""
        self._waiting: deque[Round] = deque()
        self._running: dict[Call, tuple[Round, Job]] = {}
        self._answered: SimpleQueue[Call] = SimpleQueue()

    def add(self, request: StepRequest) -> int:
        """See `StepStream.add`."""
        first = self._rounds.begin(request)
        self._tickets.append(first.ticket)
        self._waiting.append(first)
        self._submit()
        return first.ticket

    def take(self) -> list[tuple[int, Steps]]:
        """See `StepStream.take`."""
        wanted = list(islice(self._tickets, num_taken(len(self._tickets))))
        while any(ticket in self._rounds.num_open for ticket in wanted):
            self._go_on(self._answered.get())
        for ticket in wanted:
            assert ticket == self._tickets.popleft()
        return [(ticket, self._rounds.steps(ticket)) for ticket in wanted]

    def close(self) -> None:
        """See `StepStream.close`."""
        self._fleet.abandon(list(self._running))
        self._waiting.clear()
        self._running.clear()
        self._tickets.clear()

    def _submit(self) -> None:
        """Twice what may run keeps the endpoints busy, and few images in memory."""
        while self._waiting and len(self._running) < 2 * self._fleet.num_slots:
            asked = self._waiting.popleft()
            params = self._policy.params(**self._rounds.params(asked))
            job = Job(asked.prompt, asked.response_ids, params)
            call = self._policy.call(job)
            self._running[call] = asked, job
            call.future.add_done_callback(functools.partial(self._note, call))
            self._fleet.submit(call)

    def _note(self, call: Call, future: Future[Any]) -> None:
        self._answered.put(call)

    def _go_on(self, call: Call) -> None:
        asked, job = self._running.pop(call)
        answer = self._policy.answer(job, call)
        answers = [choice.spoken for choice in answer.choices]
        # Further rounds first: their request is nearer to its end than those that wait.
        self._waiting.extendleft(reversed(self._rounds.go_on(asked, answers)))
        self._submit()
