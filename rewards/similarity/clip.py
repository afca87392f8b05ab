"""Image-text cosine by any CLIP that open_clip can build (CLIP, SigLIP, EVA, ...).

Weights come from safetensors files alone: a pickled checkpoint can run code when it is
loaded, so it is refused, also where open_clip itself would take it.

Every batch has the same shape, the last one padded. The value of a row then does not
depend on how many others share its batch, so a resumed run, whose cache is cold, gives
bit-equal rewards on the same machine.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from csr.checkpoints import check_weights
from csr.config import ComponentConfig, Location
from csr.errors import EnvironmentFault, NumericalError
from csr.images import load_image
from csr.memory import memory_errors
from csr.planning import PlannedSimilarity
from csr.protocols import Similarity
from csr.types import ImageRef

if TYPE_CHECKING:
    import torch

_MEMORY_ADVICE = "Lower the similarity's image_batch_size and text_batch_size."


class Config(ComponentConfig):
    """Which CLIP, and how it runs."""

    model: Location
    """A directory with open_clip_config.json and safetensors weights (also as
    "local-dir:<path>"), a hub repository as "hf-hub:owner/name", or an open_clip model name.
    The paper's is "ViT-L-14-336" with pretrained "openai", the vision tower of LLaVA-1.5
    (arXiv:2405.14622, section 4.1)."""
    pretrained: Location | None = None
    """Only with an open_clip model name, and needed there: a pretrained tag such as "openai",
    or the path of a .safetensors file."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """"cpu", "cuda", "cuda:1", ...; "auto" is CUDA where there is one, else the CPU."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the towers. On a CPU fp32 is always used. Cosines are taken in fp32."""
    image_batch_size: int = Field(default=16, ge=1)
    """Images in one forward pass."""
    text_batch_size: int = Field(default=64, ge=1)
    """Texts in one forward pass."""
    image_cache_size: int = Field(default=4096, ge=1)
    """Images whose embedding is kept (3 kB each at 768 dimensions), the least used leave first."""
    text_cache_size: int = Field(default=16384, ge=1)
    """Texts whose embedding is kept."""


def build(config: Config) -> Similarity:
    """Load the model. ModelError or ConfigError says what is wrong with its name or files."""
    # Here, not at the top: the loader's own imports are only wanted when a model is.
    from rewards.similarity._open_clip_files import load_open_clip

    device = _device(config.device)
    precision = config.precision if device != "cpu" else "fp32"
    model, preprocess, tokenizer = load_open_clip(
        config.model, config.pretrained, device, precision
    )
    return ClipSimilarity(config, model, preprocess, tokenizer, device, precision)


def check(config: Config) -> None:
    """What can be known before the model is loaded; fetches its files where they are on the hub.

    Errors as in `build`.
    """
    from rewards.similarity._open_clip_files import find_model

    _device(config.device)
    _, weights, _ = find_model(config.model, config.pretrained)
    check_weights([weights])


def planned_similarity(config: Config) -> PlannedSimilarity | None:
    """By the towers' sizes; None where its files are not here, or tell them in another way."""
    from rewards.similarity._towers import planned_towers

    return planned_towers(config.model, dtype=config.precision, dtype_setting="precision")


class ClipSimilarity:
    """Embeds each image (by sha256) and each text once, then compares. Implements `Similarity`."""

    def __init__(
        self,
        config: Config,
        model: Any,
        preprocess: Callable[[Any], torch.Tensor],
        tokenizer: Any,
        device: str,
        precision: str = "fp32",
    ) -> None:
        self._config = config
        self._model = model
        self._preprocess = preprocess
        self._tokenizer = tokenizer
        self._device = device
        self._precision = precision
        self._images: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._texts: OrderedDict[str, torch.Tensor] = OrderedDict()

    def image_text(self, images: Sequence[ImageRef], texts: Sequence[str]) -> list[float]:
        """Cosine in [-1, 1] of each (image, text) pair. NumericalError where it is not finite."""
        refs = {_image_key(ref): ref for ref in images}
        by_image = self._embed(
            list(refs),
            self._images,
            self._config.image_cache_size,
            self._config.image_batch_size,
            lambda keys: self._encode_images([refs[key] for key in keys]),
        )
        by_text = self._embed_texts(texts)
        return _cosines(
            [by_image[_image_key(ref)] for ref in images],
            [by_text[text] for text in texts],
            texts,
        )

    def text_text(self, left: Sequence[str], right: Sequence[str]) -> list[float]:
        """Cosine in [-1, 1] of each (left, right) pair. NumericalError where it is not finite."""
        by_text = self._embed_texts([*left, *right])
        return _cosines([by_text[text] for text in left], [by_text[text] for text in right], left)

    def num_truncated(self, texts: Sequence[str]) -> int:
        """How many of these texts are longer than the text tower's context."""
        times = Counter(texts)
        rows = self._tokenizer(list(times)) if times else ()
        return sum(
            times[text]
            for text, row in zip(times, rows, strict=True)
            if is_truncated(self._tokenizer, text, row.tolist())
        )

    def close(self) -> None:
        """Drop the model and the embeddings; the object is of no use then."""
        import torch

        self._model = None
        self._images.clear()
        self._texts.clear()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _embed_texts(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        return self._embed(
            list(dict.fromkeys(texts)),
            self._texts,
            self._config.text_cache_size,
            self._config.text_batch_size,
            self._encode_texts,
        )

    def _embed(
        self,
        keys: Sequence[str],
        cache: OrderedDict[str, torch.Tensor],
        cache_size: int,
        batch_size: int,
        encode: Callable[[Sequence[str]], torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """The unit embedding of each key, [dim] in fp32 on the CPU, from the cache or encoded."""
        found = {key: cache[key] for key in keys if key in cache}
        missing = [key for key in keys if key not in found]
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            # Rows are copied: a slice would keep its whole batch alive in the cache.
            with memory_errors("comparing images and texts", _MEMORY_ADVICE):
                found.update(zip(batch, (row.clone() for row in encode(batch)), strict=True))
        for key in keys:
            cache[key] = found[key]
            cache.move_to_end(key)
        while len(cache) > cache_size:
            cache.popitem(last=False)
        return found

    def _encode_images(self, refs: Sequence[ImageRef]) -> torch.Tensor:
        import torch

        pixels = [self._preprocess(load_image(ref)) for ref in refs]
        padding = [torch.zeros_like(pixels[0])] * (self._config.image_batch_size - len(pixels))
        batch = torch.stack([*pixels, *padding]).to(self._device, self._dtype())
        with torch.inference_mode():
            features = self._model.encode_image(batch, normalize=True)
        return features[: len(refs)].float().cpu()

    def _encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        import torch

        padding = [""] * (self._config.text_batch_size - len(texts))
        token_ids = self._tokenizer([*texts, *padding])
        with torch.inference_mode():
            features = self._model.encode_text(token_ids.to(self._device), normalize=True)
        return features[: len(texts)].float().cpu()

    def _dtype(self) -> torch.dtype:
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
            self._precision
        ]


def is_truncated(tokenizer: Any, text: str, token_ids: Sequence[int]) -> bool:
    """Whether `token_ids`, `text` at the tokenizer's own context length, lack some of it.

    The tokenizers of open_clip differ in special tokens, their places and their padding;
    they share `tokenizer(texts, context_length)`. So the text is tokenised once more with
    twice the room: where it fitted, the added tokens are exactly those that an empty text
    gains, which are padding.
    """
    length = len(token_ids)
    roomy = tokenizer([text, ""], context_length=2 * length)
    gained = Counter(roomy[0].tolist()) - Counter(token_ids)
    padding = Counter(roomy[1].tolist()) - Counter(tokenizer([""])[0].tolist())
    return gained != padding


def _image_key(ref: ImageRef) -> str:
    return f"{ref.sha256}/{ref.corruption or ''}"


def _cosines(
    left: Sequence[torch.Tensor], right: Sequence[torch.Tensor], texts: Sequence[str]
) -> list[float]:
    """Dot products of unit vectors, kept in [-1, 1] against rounding."""
    import torch

    if not texts:
        return []
    values = (torch.stack(list(left)) * torch.stack(list(right))).sum(dim=-1).tolist()
    for value, text in zip(values, texts, strict=True):
        if not math.isfinite(value):
            raise NumericalError(
                f"The similarity of {text[:60]!r} is {value}: an embedding is not finite or has "
                "no length. Use precision fp32, or check the weights."
            )
    return [min(max(value, -1.0), 1.0) for value in values]


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise EnvironmentFault(
            f"The similarity is to run on {name!r}, but this machine has no CUDA device. Set its "
            "device to 'auto' or 'cpu'."
        )
    return name
