"""Endpoints as one engine: spreading, back-pressure, retries, setting aside, hostile answers."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from csr.errors import ConfigError, CSRError, EngineLost, ModelError
from csr.samplers import _server_fleet, _server_http, server
from csr.samplers._server_answers import num_cache_tokens
from csr.samplers._server_fleet import Call, Fleet
from csr.samplers._server_http import Endpoint, Unavailable
from flows.validation import validate
from tests.fake_vllm import GENERATE, FakeVllm, serving, told
from tests.processes import wait_until

PAYLOAD = {"token_ids": [1, 2, 3], "sampling_params": {"n": 1, "max_tokens": 2}}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_server_fleet, "_FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(_server_fleet, "LOOK_AGAIN_SECONDS", 600.0)


async def look(endpoint: Endpoint) -> None:
    await endpoint.get("/v1/models")
    endpoint.served = "base"


@contextmanager
def fleet_of(
    *fakes: FakeVllm,
    max_running: int = 2,
    num_retries: int = 1,
    timeout: float = 30.0,
    api_key: str | None = None,
    admit: Callable[[Endpoint], Any] = look,
) -> Iterator[Fleet]:
    endpoints = [Endpoint(f.url, api_key=api_key, timeout_seconds=timeout) for f in fakes]
    counts = {"num_retries": 0, "num_set_aside": 0}
    fleet = Fleet(
        endpoints, max_running_requests=max_running, num_retries=num_retries, counts=counts
    )
    try:
        fleet.run(fleet.begin(look, admit))
        yield fleet
    finally:
        fleet.close()


def ask(fleet: Fleet, *keys: str) -> list[Call]:
    calls = [Call(key, PAYLOAD) for key in keys]
    for call in calls:
        fleet.submit(call)
    return calls


def urls(calls: list[Call]) -> list[str]:
    return [call.future.result(30)[0].url for call in calls]


KEYS = [f"prompt {number}" for number in range(24)]


def test_no_endpoint_has_more_requests_than_it_may_and_all_have_some() -> None:
    with serving(FakeVllm(), FakeVllm(), FakeVllm()) as fakes, fleet_of(*fakes) as fleet:
        for fake in fakes:
            fake.free.clear()
        calls = ask(fleet, *KEYS)
        wait_until(lambda: sum(fake.num_running for fake in fakes) == 6)
        for fake in fakes:
            fake.free.set()
        urls(calls)
        assert [fake.most_running for fake in fakes] == [2, 2, 2]
        assert sum(len(fake.generated) for fake in fakes) == len(KEYS)


def test_one_prompts_requests_prefer_one_endpoint_and_overflow_to_others() -> None:
    with serving(FakeVllm(), FakeVllm()) as fakes, fleet_of(*fakes, max_running=4) as fleet:
        alone = {url for _ in range(6) for url in urls(ask(fleet, "the same"))}
        assert len(alone) == 1
        assert len({url for key in KEYS for url in urls(ask(fleet, key))}) == 2
        for fake in fakes:
            fake.free.clear()
        calls = ask(fleet, *["the same"] * 12)
        wait_until(lambda: [fake.num_running for fake in fakes] == [4, 4])
        for fake in fakes:
            fake.free.set()
        assert len(urls(calls)) == 12


def test_a_request_is_tried_again_where_the_server_is_busy() -> None:
    with serving(FakeVllm()) as [fake], fleet_of(fake, num_retries=2) as fleet:
        answers = iter([told(429, "busy"), told(503, "starting"), None])
        fake.fault = lambda path, body: next(answers) if path == GENERATE else None
        assert urls(ask(fleet, "one")) == [fake.url]
        assert fleet._counts == {"num_retries": 2, "num_set_aside": 0}


def test_an_endpoint_that_dies_is_set_aside_once_and_others_get_its_requests(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(FakeVllm(), FakeVllm()) as fakes, fleet_of(*fakes, max_running=8) as fleet:
        dying, other = fakes
        dying.free.clear()
        calls = ask(fleet, *KEYS)
        wait_until(lambda: dying.num_running)
        dying.stop()
        assert set(urls(calls)) == {other.url}
        assert {url for key in KEYS for url in urls(ask(fleet, key))} == {other.url}
        told_of = [r for r in caplog.records if "set aside" in r.getMessage()]
        assert len(told_of) == 1
        assert dying.url in told_of[0].getMessage()
        assert fleet._counts["num_set_aside"] == 1


def test_an_endpoint_returns_when_it_serves_the_policy_again_and_not_before(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_server_fleet, "LOOK_AGAIN_SECONDS", 0.05)
    wrong = True

    async def admit(endpoint: Endpoint) -> None:
        await look(endpoint)
        if wrong:
            raise ModelError(f"{endpoint.url} serves another model.")

    with serving(FakeVllm(), FakeVllm()) as fakes, fleet_of(*fakes, admit=admit) as fleet:
        back = fakes[0]
        back.stop()
        urls(ask(fleet, *KEYS))
        assert fleet.num_in_use == 1
        back.fault = lambda path, body: None
        back.start()
        wait_until(lambda: "stays aside" in caplog.text)
        time.sleep(0.2)
        assert fleet.num_in_use == 1
        assert caplog.text.count("stays aside") == 1
        wrong = False
        wait_until(lambda: fleet.num_in_use == 2)
        assert back.url in urls(ask(fleet, *KEYS))


def test_an_endpoint_that_no_longer_knows_the_policy_is_set_aside_at_once() -> None:
    with serving(FakeVllm(), FakeVllm()) as fakes, fleet_of(*fakes) as fleet:
        fakes[0].fault = lambda path, body: told(404, "no such model") if body else None
        assert set(urls(ask(fleet, *KEYS))) == {fakes[1].url}
        assert fleet._counts == {"num_retries": 0, "num_set_aside": 1}


def test_when_none_is_left_it_is_told_what_happened_at_each() -> None:
    with serving(FakeVllm(), FakeVllm()) as fakes, fleet_of(*fakes, max_running=1) as fleet:
        fakes[0].fault = lambda path, body: told(503, "out of memory") if body else None
        fakes[1].stop()
        calls = ask(fleet, *KEYS)
        for call in calls:
            with pytest.raises(EngineLost) as caught:
                call.future.result(30)
        assert f"{fakes[0].url}: status 503: 'out of memory'" in str(caught.value)
        assert f"{fakes[1].url}: ConnectError" in str(caught.value)
        with pytest.raises(EngineLost):
            urls(ask(fleet, "later"))


def test_a_server_that_hangs_is_set_aside_and_one_that_is_slow_is_not() -> None:
    with serving(FakeVllm(), FakeVllm()) as fakes, fleet_of(*fakes, timeout=0.3) as fleet:
        hanging, other = fakes

        def hang(path: str, body: dict[str, Any]) -> None:
            time.sleep(2)

        hanging.fault = hang
        assert set(urls(ask(fleet, *KEYS))) == {other.url}
        assert fleet.num_in_use == 1
    with serving(FakeVllm()) as [slow], fleet_of(slow, timeout=0.3, num_retries=2) as fleet:
        pauses = iter([2.0, 2.0, 0.0])
        slow.fault = lambda path, body: time.sleep(next(pauses)) if body else None
        assert urls(ask(fleet, "one")) == [slow.url]


def test_a_request_that_fails_at_a_healthy_server_does_not_take_the_server_away() -> None:
    with serving(FakeVllm()) as [fake], fleet_of(fake) as fleet:
        fake.fault = lambda path, body: told(500, "NaN is not JSON") if body else None
        with pytest.raises(ModelError, match=r"failed on a request 2 times.*NaN is not JSON"):
            urls(ask(fleet, "one"))
        assert fleet.num_in_use == 1


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (told(400, "prompt too long " * 99), ModelError, r"status 400.*prompt too long.*\.\.\."),
        (told(401, "Unauthorized"), ConfigError, "refuses the API key"),
        (told(403, "disabled"), ConfigError, "--enable-scale-out"),
        ((302, b"http://elsewhere/"), ConfigError, "redirect"),
        ((200, b"<html>"), ModelError, "not JSON"),
        ((200, b"[" * 100_000), ModelError, "not JSON"),
        ((200, b'{"choices": NaN}'), ModelError, "not JSON"),
        ((200, b"[1]"), ModelError, "no object"),
        ((200, b" " * 300_000), ModelError, "more than 200,000 bytes"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_asking_again_would_not_mend_is_told_at_once(
    fault: tuple[int, bytes], kind: type[CSRError], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(FakeVllm()) as [fake], fleet_of(fake) as fleet:
        monkeypatch.setattr(_server_http, "MAX_ANSWER_BYTES", 200_000)
        fake.fault = lambda path, body: fault
        with pytest.raises(kind, match=said) as caught:
            urls(ask(fleet, "one"))
        assert fake.url in str(caught.value)
        assert len(str(caught.value)) < 600
        assert len(fake.generated) == 1


def test_a_form_that_is_not_known_is_told_by_its_place() -> None:
    from csr.samplers._server_answers import Answer

    endpoint = Endpoint("http://127.0.0.1:1", api_key=None, timeout_seconds=1)
    good = {"prompt_token_ids": [1], "choices": []}
    assert endpoint.validated(Answer, good).choices == []
    for bad in (
        {**good, "prompt_token_ids": [-1]},
        {**good, "prompt_token_ids": ["1"]},
        {**good, "prompt_token_ids": [True]},
        {**good, "choices": [{"index": 0, "finish_reason": "stop", "token_ids": None}]},
        {**good, "prompt_logprobs": [{"x": {"logprob": 1.0}}]},
        {"choices": []},
    ):
        with pytest.raises(ModelError, match="unknown form"):
            endpoint.validated(Answer, bad)


def test_the_key_travels_and_is_never_told() -> None:
    def leak(path: str, body: dict[str, Any]) -> tuple[int, bytes] | None:
        return told(400, "you sent Bearer very-secret") if body else None

    with serving(FakeVllm()) as [fake], fleet_of(fake, api_key="very-secret") as fleet:
        fake.fault = leak
        with pytest.raises(ModelError) as caught:
            urls(ask(fleet, "one"))
        assert fake.asked[-1][2]["Authorization"] == "Bearer very-secret"
        assert "very-secret" not in str(caught.value)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with serving(FakeVllm()) as [fake], fleet_of(fake) as fleet:
        assert urls(ask(fleet, "one")) == [fake.url]
    for url in ("http://localhost:8000", "http://127.9.9.9", "http://[::1]:8000"):
        assert _server_http.is_loopback(url)
    assert not _server_http.is_loopback("http://gpu-3:8000")


def test_given_up_requests_end_and_the_slots_are_free_again() -> None:
    with serving(FakeVllm()) as [fake], fleet_of(fake) as fleet:
        fake.free.clear()
        calls = ask(fleet, *KEYS)
        wait_until(lambda: fake.num_running == 2)
        held, fake.free = fake.free, threading.Event()
        fake.free.set()
        fleet.abandon(calls)
        assert urls(ask(fleet, "after")) == [fake.url]
        assert fake.num_running == 2, "the server still works on what nobody waits for"
        assert all(call.future.cancelled() for call in calls)
        held.set()


def test_a_request_given_up_before_it_began_frees_its_slot_too() -> None:
    with serving(FakeVllm()) as [fake], fleet_of(fake, max_running=1) as fleet:
        call = Call("never", PAYLOAD)

        async def give_up_at_once() -> None:
            fleet._enter(call)  # its task is made, and has not run yet
            assert fleet.endpoints[0].num_running == 1
            await fleet._abandon([call])

        fleet.run(give_up_at_once())
        assert urls(ask(fleet, "after")) == [fake.url]
        assert call.future.cancelled()


def test_a_server_without_the_route_is_told_from_one_that_is_gone() -> None:
    async def without_route(endpoint: Endpoint) -> None:
        raise _server_http.PolicyGone("status 404: Not Found")

    with (
        serving(FakeVllm()) as [fake],
        fleet_of(fake) as fleet,
        pytest.raises(ModelError, match="--enable-scale-out"),
    ):
        fleet.run(fleet.begin(without_route, look))


def test_a_proxy_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "nonsense://proxy:1")
    with pytest.raises(ConfigError, match="ALL_PROXY"):
        Endpoint("http://gpu-1:8000", api_key=None, timeout_seconds=1.0)


def test_an_endpoint_that_does_not_answer_at_first_is_set_aside() -> None:
    with serving(FakeVllm(), FakeVllm()) as fakes:
        fakes[0].stop()
        with fleet_of(*fakes) as fleet:
            assert fleet.num_in_use == 1
        fakes[1].stop()
        with pytest.raises(EngineLost, match="None of the sampler's 2 endpoints"), fleet_of(*fakes):
            pass


@pytest.mark.parametrize(
    ("endpoints", "said"),
    [
        ([], "at least 1"),
        (["ftp://a:1"], "not the address of a server"),
        (["file:///etc/passwd"], "not the address of a server"),
        (["localhost:8000"], "not the address of a server"),
        (["http://a:b@c"], "holds a user or a password"),
        (["http://a?key=1"], "more than a base URL"),
        (["http://a:99999"], "not a URL"),
        (["http://a", "http://a/v1/"], "named twice"),
        (["http://a b"], "not the address of a server"),
        (["http://a?"], "more than a base URL"),
        (["http://a#"], "more than a base URL"),
        (["http://10.0.0.300:8000"], "not a URL"),
    ],
)
def test_endpoints_that_cannot_be_are_refused(endpoints: list[str], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        server.Config(endpoints=tuple(endpoints))
    assert "a:b" not in str(caught.value.errors(include_input=False))


def test_base_urls_are_brought_to_one_form() -> None:
    config = server.Config(endpoints=("http://a:8000/", "https://b/v1", "http://c/proxy/1"))
    assert config.endpoints == ("http://a:8000", "https://b", "http://c/proxy/1")


def test_a_key_that_is_not_set_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = server.Config(endpoints=("http://a",), api_key_env="CSR_TEST_KEY")
    monkeypatch.delenv("CSR_TEST_KEY", raising=False)
    with pytest.raises(ConfigError, match="CSR_TEST_KEY, and that environment variable"):
        server.build(config)
    monkeypatch.setenv("CSR_TEST_KEY", "two words")
    with pytest.raises(ConfigError, match="CSR_TEST_KEY holds what no API key") as caught:
        server.build(config)
    assert "two words" not in str(caught.value)
    with pytest.raises(ConfigError, match="CSR_TEST_KEY"):
        server.check_prompts(tmp_path, config)


@pytest.mark.parametrize("given", ["sk-abc123", "sk_live_0123456789abcdef", "A" * 65])
def test_a_key_in_place_of_its_variables_name_is_never_told(given: str) -> None:
    document = {"endpoints": ["http://a"], "api_key_env": given}
    with pytest.raises(ConfigError, match="not the key") as caught:
        validate(server.Config, document, "recipe")
    assert given not in str(caught.value)


def test_endpoints_as_one_text_are_refused_and_not_told() -> None:
    with pytest.raises(ConfigError, match="Give a list") as caught:
        validate(server.Config, {"endpoints": "http://u:secret@host"}, "recipe")
    assert "secret" not in str(caught.value)


def test_the_cache_is_read_from_metrics() -> None:
    line = 'vllm:cache_config_info{block_size="32",engine="0",kv_cache_size_tokens="1000"} 1.0\n'
    old = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="10",num_cpu_blocks="None"} 1.0\n'
    assert num_cache_tokens(f"# HELP x\n{line}{line}{old}") == 2160
    assert num_cache_tokens("nothing of it") == 0


def test_the_loop_ends_with_the_fleet(caplog: pytest.LogCaptureFixture) -> None:
    with serving(FakeVllm()) as [fake]:
        with caplog.at_level(logging.WARNING), fleet_of(fake) as fleet:
            urls(ask(fleet, "one"))
        assert not fleet._thread.is_alive()
        assert caplog.records == []


def test_an_answer_that_trickles_is_cut_off() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(40):
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def asked() -> None:
        listening = await asyncio.start_server(trickle, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        endpoint = Endpoint(f"http://127.0.0.1:{port}", api_key=None, timeout_seconds=0.3)
        with pytest.raises(Unavailable, match=r"no answer within 0.3 s"):
            await endpoint.post(GENERATE, json.loads("{}"))
        await endpoint.close()
        listening.close()

    asyncio.run(asked())
