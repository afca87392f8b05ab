"""Which of an endpoint's models is the policy, or becomes it by an adapter.

An adapter is loaded under a name made of its content and its path: vLLM's caches know an adapter
by name and path alone, and a name that is used again would speak with the old weights.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from csr.checkpoints import MAX_CONFIG_BYTES, weights_sha256
from csr.errors import ConfigError, ModelError
from csr.samplers._server_answers import Card, Cards
from csr.samplers._server_http import Endpoint, ServerFault
from csr.types import PolicyRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A policy, by what an endpoint may know of it."""

    path: Path
    """Directory of its whole weights."""
    model: str | None
    """The one base model to look at, where the user names it."""
    adapter: Path | None = None
    adapter_base: str | None = None
    """The model that the adapter was trained on."""
    adapter_name: str = ""

    @staticmethod
    def of(policy: PolicyRef, path: Path, model: str | None) -> Wanted:
        """What is to be found or loaded. ModelError for an adapter that cannot be read."""
        if policy.adapter_path is None:
            return Wanted(path=path, model=model)
        adapter = Path(policy.adapter_path)
        name = f"{weights_sha256(adapter)} {adapter}"
        return Wanted(
            path=path,
            model=model,
            adapter=adapter,
            adapter_base=_adapter_base(adapter),
            adapter_name=f"csr-{hashlib.sha256(name.encode()).hexdigest()[:16]}",
        )


@dataclass(frozen=True, slots=True)
class Served:
    """Under which names an endpoint speaks."""

    name: str
    """As the policy."""
    base: str
    """As the model without the adapter; the same where there is none."""
    max_context_tokens: int


async def find_or_load(endpoint: Endpoint, wanted: Wanted) -> Served:
    """The endpoint's model that is the policy. ModelError says what to start instead."""
    cards = await _cards(endpoint)
    bases = [card for card in cards if card.parent is None and card.max_model_len is not None]
    if wanted.model is not None:
        bases = [card for card in bases if card.id == wanted.model]
        if not bases:
            raise ConfigError(
                f"{endpoint.url} serves no model by the name {wanted.model!r} (it lists "
                f"{_listed(cards)}). Correct the sampler's model, or start the server with "
                "--served-model-name."
            )
    for card in bases:
        if _same_place(card.root, str(wanted.path)):
            return Served(card.id, card.id, card.max_model_len or 0)
    for card in bases:
        if wanted.adapter_base and _same_place(card.root, wanted.adapter_base):
            await _load_adapter(endpoint, wanted, cards)
            return Served(wanted.adapter_name, card.id, card.max_model_len or 0)
    raise _not_served(endpoint, wanted, bases)


async def _cards(endpoint: Endpoint) -> list[Card]:
    return endpoint.validated(Cards, endpoint.parsed(await endpoint.get("/v1/models"))).data


async def _load_adapter(endpoint: Endpoint, wanted: Wanted, cards: list[Card]) -> None:
    if _has_adapter(wanted, cards):
        return
    body = {"lora_name": wanted.adapter_name, "lora_path": str(wanted.adapter)}
    try:
        await endpoint.post("/v1/load_lora_adapter", body)
    except (ModelError, ServerFault) as error:
        if _has_adapter(wanted, await _cards(endpoint)):
            return  # another process was faster
        raise ModelError(
            f"{endpoint.url} cannot load the adapter {wanted.adapter}: {error} It needs "
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment, --enable-lora, a "
            "--max-lora-rank of at least the adapter's, and the same path to it as here."
        ) from None


def _has_adapter(wanted: Wanted, cards: list[Card]) -> bool:
    return any(card.id == wanted.adapter_name for card in cards)


def _not_served(endpoint: Endpoint, wanted: Wanted, bases: list[Card]) -> ModelError:
    roots = ", ".join(sorted(repr(card.root)[:200] for card in bases)[:5]) or "no model"
    if wanted.adapter_base is None:
        start = f"vllm serve {wanted.path} --enable-scale-out"
        why = "it must see that path"
    else:
        # Not the policy's own directory: the model before it must be there too, to compare.
        start = f"vllm serve {wanted.adapter_base} --enable-scale-out --enable-lora"
        why = "on that model the policy's adapter was trained, and it must see both paths"
    return ModelError(
        f"{endpoint.url} serves {roots}, and not the policy {wanted.path}. Start it with "
        f"`{start}`: {why}."
    )


def _adapter_base(adapter: Path) -> str:
    file = adapter / "adapter_config.json"
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {MAX_CONFIG_BYTES:,} bytes")
        base = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
        if not isinstance(base, str) or not base:
            raise ValueError("it names no base model")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{file} does not say on which model the adapter was trained ({error!r:.200}), so no "
            "server could tell whether it fits. Give the directory that PEFT wrote."
        ) from None
    return base


def _same_place(root: str | None, path: str) -> bool:
    """Whether a server's name for a model is that directory, or the hub id it was fetched by."""
    if root is None:
        return False
    try:
        if Path(root).is_absolute() and Path(path).exists():
            return Path(root).resolve() == Path(path).resolve()
    except (OSError, ValueError):
        return False
    return root == path or (
        root.count("/") == 1 and f"models--{root.replace('/', '--')}" in Path(path).parts
    )


def _listed(cards: list[Card]) -> str:
    return ", ".join(repr(card.id)[:100] for card in cards[:5]) or "none"
