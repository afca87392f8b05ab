"""The command line that vLLM's CPU build is started by."""

import importlib.metadata

import pytest
import vllm_cpu_serve


def test_what_the_sampler_needs_is_filled_in_and_what_was_given_stays() -> None:
    given = ["/models/llava", "--block-size=64", "--port", "8000"]
    line = vllm_cpu_serve.arguments(given)
    assert line[: len(given) + 2] == ["vllm", "serve", *given]
    assert line[len(given) + 2 :] == [
        "--enable-scale-out", "--no-enable-chunked-prefill", "--enforce-eager",
    ]  # fmt: skip
    other = vllm_cpu_serve.arguments(["m", "--block_size=64", "--no-enforce-eager"])
    assert other[2:] == [
        "m", "--block_size=64", "--no-enforce-eager",
        "--enable-scale-out", "--no-enable-chunked-prefill",
    ]  # fmt: skip
    for_adapters = vllm_cpu_serve.arguments(["/models/llava", "--enable-lora"])
    assert tuple(for_adapters[-8:]) == vllm_cpu_serve.WITH_ADAPTERS
    assert "lm_head" not in for_adapters


def test_the_cpu_builds_version_is_told_for_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"vllm-cpu": "0.32.0", "torch": "2.13.0"}

    def version(name: str) -> str:
        if name not in known:
            raise importlib.metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(vllm_cpu_serve, "_version", version)
    assert vllm_cpu_serve.version("vllm") == "0.32.0+cpu"
    assert vllm_cpu_serve.version("torch") == "2.13.0"
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        vllm_cpu_serve.version("nothing")
    known["vllm"] = "0.33.0"
    assert vllm_cpu_serve.version("vllm") == "0.33.0"
