"""Steps as a stream from vLLM: each request goes on by itself until all its candidates have ended.

A candidate that stopped where `csr.steps` sees no end (".", which also stands inside "3.5" and
"Mr.") is continued by a request of its own, while its siblings wait and others are sampled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from csr.errors import ConfigError
from csr.protocols import StepSettings
from csr.samplers._shared import (
    check_tokens,
    derived_seed,
    finish_reason,
    step_limits,
    text_after,
)
from csr.samplers._vllm_chain import Chain
from csr.samplers._vllm_engine import MAX_LOGPROBS
from csr.samplers._vllm_policy import Job, ServedPolicy, at_eos, sampled_logprobs
from csr.step_streams import Steps
from csr.steps import stop_strings
from csr.types import StepRequest

_TAKEN_SHARE = 8
"""`take` waits until one of so many requests has ended: the scorer then gets whole batches, and
the engine is never drained."""


class VllmSteps:
    """Implements `csr.step_streams.StepStream`."""

    works_in_batches = False

    def __init__(
        self, policy: ServedPolicy, settings: StepSettings, max_running_requests: int
    ) -> None:
        self._policy = policy
        self._max_running = max_running_requests
        self._branching = settings.diversity == "branch_first_token"
        if self._branching:
            settings = replace(settings, temperature=0.0, top_p=1.0)
        # Greedy candidates are all equal, and sampled once.
        self._repeats = 1
        if settings.temperature == 0 and not self._branching:
            self._repeats = settings.num_candidates
            settings = replace(settings, num_candidates=1)
        self._settings = settings
        self._families: list[list[Chain]] = []
        self._waiting: deque[tuple[int, list[Chain], int]] = deque()
        """(ticket, chains that share all ids so far, round)"""
        self._running: dict[str, tuple[int, list[Chain], int]] = {}
        self._num_open: dict[int, int] = {}
        """Ticket -> its chains that have not ended."""

    def add(self, request: StepRequest) -> int:
        """See `StepStream.add`."""
        num_prompt = len(self._policy.expanded_ids(request.prompt))
        limits = step_limits(request, self._settings, num_prompt, self._policy.max_context_tokens)
        prefix_text = self._policy.decode(request.prefix_token_ids)
        chains = [
            Chain(request, index, limits, prefix_text)
            for index in range(self._settings.num_candidates)
        ]
        ticket = len(self._families)
        self._families.append(chains)
        self._num_open[ticket] = len(chains)
        self._waiting.append((ticket, chains, 0))
        return ticket

    def take(self) -> list[tuple[int, Steps]]:
        """See `StepStream.take`."""
        wanted = -(-len(self._num_open) // _TAKEN_SHARE)
        ended: list[tuple[int, Steps]] = []
        while len(ended) < wanted:
            self._submit()
            for name, output in self._policy.ended():
                ticket = self._continue(*self._running.pop(name), output)
                if ticket is not None:
                    ended.append((ticket, self._steps(ticket)))
        return ended

    def close(self) -> None:
        """See `StepStream.close`."""
        self._waiting.clear()
        self._num_open.clear()
        self._policy.abort(list(self._running))
        self._running.clear()

    def _submit(self) -> None:
        """Hand as many requests to the engine as it may have."""
        num_free = self._max_running - len(self._running)
        batch = [self._waiting.popleft() for _ in range(min(num_free, len(self._waiting)))]
        names = self._policy.submit([self._job(chains, number) for _, chains, number in batch])
        self._running.update(zip(names, batch, strict=True))

    def _job(self, chains: Sequence[Chain], round_index: int) -> Job:
        first = chains[0]
        if self._branching and round_index == 0:
            params = self._policy.params(
                temperature=0.0, max_tokens=1, logprobs=self._num_first_tokens()
            )
        else:
            params = self._policy.params(
                n=len(chains),
                temperature=self._settings.temperature,
                top_p=self._settings.top_p,
                seed=derived_seed(first.request.seed, first.index, round_index),
                max_tokens=first.limits.after(len(first.token_ids)).next,
                stop=list(stop_strings(self._settings.step_rule)),
                include_stop_str_in_output=True,
            )
        return Job(first.request.prompt, first.all_ids, params)

    def _continue(
        self, ticket: int, chains: list[Chain], round_index: int, output: Any
    ) -> int | None:
        """Put sampled tokens into their chains. The ticket, where all of its chains have ended."""
        if self._branching and round_index == 0:
            self._branch(chains, output)
        else:
            for chain, completion in zip(chains, output.outputs, strict=True):
                ids, logprobs = list(completion.token_ids), sampled_logprobs(completion)
                self._extend(chain, ids, logprobs, at_eos=at_eos(completion))
        for chain in chains:
            if chain.reason is None:
                self._waiting.append((ticket, [chain], round_index + 1))
            else:
                self._num_open[ticket] -= 1
        if self._num_open[ticket]:
            return None
        del self._num_open[ticket]
        return ticket

    def _steps(self, ticket: int) -> Steps:
        chains, self._families[ticket] = self._families[ticket], []
        return [chain.candidate() for chain in chains] * self._repeats

    def _branch(self, chains: Sequence[Chain], output: Any) -> None:
        """Give each chain one of the likeliest first tokens."""
        media = set(self._policy.media_ids)
        row = output.outputs[0].logprobs[0]
        known = {i: entry.logprob for i, entry in row.items() if i not in media}
        ranked = sorted(known, key=lambda i: (-known[i], i))
        for chain in chains:
            token = ranked[chain.index]
            self._extend(chain, [token], [known[token]], at_eos=token in self._policy.eos_ids)

    def _num_first_tokens(self) -> int:
        num_media = len(set(self._policy.media_ids))
        num_wanted = self._settings.num_candidates + num_media
        if num_wanted > MAX_LOGPROBS:
            raise ConfigError(
                f"branch_first_token with {self._settings.num_candidates} candidates is more than "
                f"the engine reports ({MAX_LOGPROBS - num_media}). Use fewer candidates or "
                "'sample'."
            )
        return num_wanted

    def _extend(
        self, chain: Chain, token_ids: list[int], logprobs: list[float], *, at_eos: bool
    ) -> None:
        check_tokens(token_ids, logprobs, media_ids=self._policy.media_ids)
        chain.token_ids += token_ids
        chain.logprobs += logprobs
        chain.text = text_after(
            self._policy.decode, chain.request.prefix_token_ids, chain.token_ids
        )
        chain.reason = finish_reason(
            chain.text,
            prefix_text=chain.prefix_text,
            at_eos=at_eos,
            rule=self._settings.step_rule,
            left=chain.limits.after(len(chain.token_ids)),
        )
