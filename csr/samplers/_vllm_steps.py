"""Steps as a stream from vLLM: each request goes on by itself until all its candidates have ended.

A candidate that needs a further round waits for it while its siblings and others are sampled.
"""

from __future__ import annotations

from collections import deque

from csr.protocols import StepSettings
from csr.samplers._step_rounds import Round, StepRounds, num_taken
from csr.samplers._vllm_engine import MAX_LOGPROBS
from csr.samplers._vllm_policy import Job, ServedPolicy, spoken
from csr.step_streams import Steps
from csr.types import StepRequest


class VllmSteps:
    """Implements `csr.step_streams.StepStream`."""

    works_in_batches = False

    def __init__(
        self, policy: ServedPolicy, settings: StepSettings, max_running_requests: int
    ) -> None:
        self._policy = policy
        self._max_running = max_running_requests
        self._rounds = StepRounds(policy, settings, max_logprobs=MAX_LOGPROBS)
        self._waiting: deque[Round] = deque()
        self._running: dict[str, Round] = {}

    def add(self, request: StepRequest) -> int:
        """See `StepStream.add`."""
        first = self._rounds.begin(request)
        self._waiting.append(first)
        return first.ticket

    def take(self) -> list[tuple[int, Steps]]:
        """See `StepStream.take`."""
        num_open = self._rounds.num_open
        wanted = num_taken(len(num_open))
        ended: list[tuple[int, Steps]] = []
        while len(ended) < wanted:
            self._submit()
            for name, output in self._policy.ended():
                asked = self._running.pop(name)
                answers = [spoken(completion) for completion in output.outputs]
                self._waiting.extend(self._rounds.go_on(asked, answers))
                if asked.ticket not in num_open:
                    ended.append((asked.ticket, self._rounds.steps(asked.ticket)))
        return ended

    def close(self) -> None:
        """See `StepStream.close`."""
        self._waiting.clear()
        self._rounds.num_open.clear()
        self._policy.abort(list(self._running))
        self._running.clear()

    def _submit(self) -> None:
        """Hand as many requests to the engine as it may have."""
        num_free = self._max_running - len(self._running)
        batch = [self._waiting.popleft() for _ in range(min(num_free, len(self._waiting)))]
        names = self._policy.submit([self._job(asked) for asked in batch])
        self._running.update(zip(names, batch, strict=True))

    def _job(self, asked: Round) -> Job:
        params = self._policy.params(**self._rounds.params(asked))
        return Job(asked.prompt, asked.response_ids, params)
