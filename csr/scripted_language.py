"""The little language of the scripted components: what a policy without a model speaks.

Either a grammar of its own (" A red circle is at the top left.") or given `replies`. The
probability of a token is a hash of policy, image, prompt and the response so far, so the
sampler that speaks and the trainer that scores agree without knowing each other.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from pydantic import Field

from csr.config import ComponentConfig
from csr.errors import DataError
from csr.steps import whole_letters
from csr.types import Prompt

EOS_ID = 0
_FIRST_BYTE_ID = 1
_FIRST_WORD_ID = _FIRST_BYTE_ID + 256
_SLOTS: tuple[tuple[str, ...], ...] = (
    (" A", " One", " The", " This", " That"),
    (" red", " green", " blue", " yellow", " white", " black"),
    (" circle", " square", " triangle", " cross", " ring", " diamond"),
    (" is at the", " lies at the"),
    (" top left", " top right", " centre", " bottom left", " bottom right"),
    (".", ".", "!"),
)
_WORDS = tuple(sorted({word for slot in _SLOTS for word in slot}))
_WORD_IDS = {word: _FIRST_WORD_ID + index for index, word in enumerate(_WORDS)}


class LanguageConfig(ComponentConfig):
    """What decides the probabilities: the same for the sampler and the trainer of a recipe."""

    replies: tuple[str, ...] = ()
    """Whole responses that a policy may give, to any prompt. Empty: its own grammar."""
    max_sentences: int = Field(4, ge=1)
    """Sentences after which the grammar ends a response (it often ends it earlier)."""
    spread: float = Field(2.0, ge=0)
    """Nats between the least and the most favoured next word; 0 makes all equally likely."""


class Language:
    """Which tokens may follow, and how likely each is, for any policy."""

    def __init__(self, config: LanguageConfig) -> None:
        self._config = config
        self._replies = tuple((*encode(reply), EOS_ID) for reply in config.replies)

    def next_logprobs(
        self, policy: str, prompt: Prompt, ids: tuple[int, ...], *, with_image: bool = True
    ) -> dict[int, float]:
        """Log-probabilities of the tokens that may follow `ids`, summing to one.

        `policy` is the digest of its weights.
        """
        image = _image_identity(prompt) if with_image else ""
        context = f"{policy}/{image}/{prompt.text}/{ids}"
        tokens = self._allowed(ids)
        logits = {token: self._config.spread * _unit(f"{context}/{token}") for token in tokens}
        total = math.log(sum(math.exp(logit) for logit in logits.values())) if logits else 0.0
        return {token: logit - total for token, logit in logits.items()}

    def score(
        self, policy: str, prompt: Prompt, ids: tuple[int, ...], *, with_image: bool = True
    ) -> tuple[float, ...]:
        """Log-probability of each token. DataError where it is not in the language."""
        values = []
        for index, token in enumerate(ids):
            known = self.next_logprobs(policy, prompt, ids[:index], with_image=with_image)
            if token not in known:
                raise DataError(
                    f"Token {token} at place {index} of the response to prompt "
                    f"{prompt.prompt_id!r} is not in the scripted sampler's language. Score only "
                    "what it sampled, with the same `replies`."
                )
            values.append(known[token])
        return tuple(values)

    def _allowed(self, ids: tuple[int, ...]) -> list[int]:
        if self._replies:
            size = len(ids)
            return sorted({r[size] for r in self._replies if len(r) > size and r[:size] == ids})
        sentence, slot = divmod(len(ids), len(_SLOTS))
        if EOS_ID in ids or sentence > self._config.max_sentences:
            return []
        words = [] if sentence == self._config.max_sentences else sorted(set(_SLOTS[slot]))
        ends = [EOS_ID] if sentence and not slot else []
        return ends + [_WORD_IDS[word] for word in words]


def encode(text: str) -> tuple[int, ...]:
    """Token ids of a text: the longest known word at each place, else single bytes."""
    ids: list[int] = []
    while text:
        words = [word for word in _WORDS if text.startswith(word)]
        if words:
            word = max(words, key=len)
            ids.append(_WORD_IDS[word])
            text = text[len(word) :]
        else:
            ids += [_FIRST_BYTE_ID + byte for byte in text[0].encode()]
            text = text[1:]
    return tuple(ids)


def decode(token_ids: Sequence[int]) -> str:
    """The text of token ids; neither the end of response nor a part of a letter has any."""
    data = b"".join(_token_bytes(token_id) for token_id in token_ids)
    return whole_letters(data.decode(errors="replace"))


def _image_identity(prompt: Prompt) -> str:
    image = prompt.image
    return image.sha256 if image.corruption is None else f"{image.sha256}:{image.corruption}"


def _unit(text: str) -> float:
    """A number in [0, 1) from a text, always the same."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _token_bytes(token_id: int) -> bytes:
    if token_id == EOS_ID:
        return b""
    if token_id < _FIRST_WORD_ID:
        return bytes([token_id - _FIRST_BYTE_ID])
    return _WORDS[token_id - _FIRST_WORD_ID].encode()
