"""Steps for requests that come as the search goes on, beside whole batches of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Protocol

from csr.types import StepCandidate, StepRequest

Steps = list[StepCandidate]
"""The candidates for one request."""


class StepStream(Protocol):
    """Requests in, their next steps out, in the order in which they end."""

    @property
    def works_in_batches(self) -> bool:
        """Whether `take` works off all that was asked: the more is asked at once, the better."""

    def add(self, request: StepRequest) -> int:
        """Ask for a request's next steps. Returns the ticket by which `take` names it."""

    def take(self) -> list[tuple[int, Steps]]:
        """Tickets that have ended, with their steps; waits for some. Empty where nothing is asked.

        What it returns depends on what was added before which call, and not on the clock.
        """

    def close(self) -> None:
        """Give up what has not ended. Safe to call twice."""


def all_steps(stream: StepStream, requests: Sequence[StepRequest]) -> list[Steps]:
    """The steps of all requests, in their order; the stream is closed."""
    with closing(stream):
        tickets = [stream.add(request) for request in requests]
        steps: dict[int, Steps] = {}
        while len(steps) < len(tickets):
            steps.update(stream.take())
    return [steps[ticket] for ticket in tickets]


class BatchedSteps:
    """A stream over a sampler that only knows batches. Implements `StepStream`."""

    works_in_batches = True

    def __init__(self, sample: Callable[[Sequence[StepRequest]], list[Steps]]) -> None:
        self._sample = sample
        self._num_tickets = 0
        self._asked: list[tuple[int, StepRequest]] = []

    def add(self, request: StepRequest) -> int:
        """See `StepStream.add`."""
        self._asked.append((self._num_tickets, request))
        self._num_tickets += 1
        return self._num_tickets - 1

    def take(self) -> list[tuple[int, Steps]]:
        """See `StepStream.take`: all that was asked, as one batch."""
        asked, self._asked = self._asked, []
        if not asked:
            return []
        answers = self._sample([request for _, request in asked])
        assert len(answers) == len(asked), "a sampler answers every request"
        return [(ticket, steps) for (ticket, _), steps in zip(asked, answers, strict=True)]

    def close(self) -> None:
        """See `StepStream.close`."""
        self._asked.clear()
