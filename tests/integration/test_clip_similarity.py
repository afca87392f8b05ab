"""The CLIP similarity on a tiny random open_clip model."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from csr.errors import ConfigError, CSRError, ModelError, NumericalError
from csr.images import image_ref
from csr.types import ImageRef
from rewards.similarity.clip import ClipSimilarity, Config, build, is_truncated
from tests.tiny_models import make_open_clip

TEXTS = [
    f"A {colour} {shape}." for colour in ("red", "green") for shape in ("ring", "cross", "dot")
]


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_open_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture(scope="module")
def refs(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRef]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(5):
        pixels = rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return [image_ref(folder / f"{index}.png") for index in range(5)]


def load(path: Path, **settings: Any) -> ClipSimilarity:
    similarity = build(Config(model=str(path), device="cpu", **settings))
    assert isinstance(similarity, ClipSimilarity)
    return similarity


class Spy:
    """Counts what the towers are given."""

    def __init__(self, similarity: ClipSimilarity) -> None:
        self.model = similarity._model
        self.batches: dict[str, list[int]] = {"image": [], "text": []}
        similarity._model = self

    def encode_image(self, pixels: torch.Tensor, normalize: bool) -> torch.Tensor:
        self.batches["image"].append(len(pixels))
        return self.model.encode_image(pixels, normalize=normalize)

    def encode_text(self, token_ids: torch.Tensor, normalize: bool) -> torch.Tensor:
        self.batches["text"].append(len(token_ids))
        return self.model.encode_text(token_ids, normalize=normalize)


def test_cosines_equal_open_clips_own(clip_path: Path, refs: list[ImageRef]):
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip_path}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{clip_path}")
    with torch.inference_mode():
        image = model.eval().encode_image(preprocess(Image.open(refs[0].uri))[None])
        text = model.encode_text(tokenizer(TEXTS))
        expected = torch.nn.functional.cosine_similarity(image, text).tolist()
        between = torch.nn.functional.cosine_similarity(text[:1], text).tolist()
    similarity = load(clip_path)
    assert similarity.image_text([refs[0]] * len(TEXTS), TEXTS) == pytest.approx(expected, abs=1e-5)
    assert similarity.text_text(TEXTS[:1] * len(TEXTS), TEXTS) == pytest.approx(between, abs=1e-5)
    assert max(expected) - min(expected) > 1e-3


def test_each_image_and_text_is_encoded_once(clip_path: Path, refs: list[ImageRef]):
    similarity = load(clip_path, image_batch_size=2, text_batch_size=4)
    spy = Spy(similarity)
    similarity.image_text([refs[0]] * 6 + [refs[1]] * 6 + [refs[2]] * 6, TEXTS * 3)
    assert spy.batches == {"image": [2, 2], "text": [4, 4]}
    similarity.image_text([refs[2], refs[0]], TEXTS[:2])
    similarity.text_text(TEXTS, TEXTS[::-1])
    assert spy.batches == {"image": [2, 2], "text": [4, 4]}


def test_an_image_is_known_by_content_not_by_name(
    clip_path: Path, refs: list[ImageRef], tmp_path: Path
):
    copy = Path(shutil.copy(refs[0].uri, tmp_path / "copy.png"))
    similarity = load(clip_path)
    spy = Spy(similarity)
    value = similarity.image_text([refs[0]], TEXTS[:1])
    assert similarity.image_text([image_ref(copy)], TEXTS[:1]) == value
    assert len(spy.batches["image"]) == 1


def test_batched_equals_one_by_one_to_the_last_bit(clip_path: Path, refs: list[ImageRef]):
    pairs = [(ref, text) for ref in refs for text in TEXTS]
    batched = load(clip_path).image_text([ref for ref, _ in pairs], [text for _, text in pairs])
    alone = [load_value(clip_path, ref, text) for ref, text in pairs[:4]]
    warm = load(clip_path)
    one_by_one = [warm.image_text([ref], [text])[0] for ref, text in reversed(pairs)][::-1]
    assert batched == one_by_one
    assert batched[:4] == alone


def load_value(path: Path, ref: ImageRef, text: str) -> float:
    return load(path).image_text([ref], [text])[0]


def test_caches_are_bounded_and_a_call_larger_than_the_cache_works(
    clip_path: Path, refs: list[ImageRef]
):
    small = load(clip_path, image_cache_size=2, text_cache_size=3, text_batch_size=4)
    images, texts = [refs[i % 5] for i in range(6)], TEXTS
    assert small.image_text(images, texts) == load(clip_path, text_batch_size=4).image_text(
        images, texts
    )
    assert (len(small._images), len(small._texts)) == (2, 3)
    spy = Spy(small)
    small.text_text([texts[-1]], [texts[-2]])
    assert spy.batches["text"] == []
    small.text_text([texts[0]], [texts[0]])
    assert spy.batches["text"] == [4]


def test_long_texts_are_cut_and_counted(clip_path: Path):
    similarity = load(clip_path)
    fits, long = "ring " * 75, "ring " * 76
    assert similarity.num_truncated([]) == 0
    assert similarity.num_truncated([fits]) == 0
    assert similarity.num_truncated([long, fits, long + "dot", long]) == 3
    cut = similarity.text_text([long], [fits])
    assert cut == pytest.approx([1.0], abs=1e-6)


def hugging_face(folder: Path, padding_side: str, mode: str | None = None) -> HFTokenizer:
    """A Hugging Face tokenizer of two words, with a start and an end token and padding."""
    vocab = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "ring": 4, "dot": 5}
    words = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        bos_token="[CLS]", eos_token="[SEP]", unk_token="[UNK]", padding_side=padding_side,
    ).save_pretrained(folder)  # fmt: skip
    return HFTokenizer(str(folder), context_length=8, tokenizer_mode=mode)


def cut(tokenizer: Any, texts: Sequence[str]) -> list[bool]:
    return [is_truncated(tokenizer, text, tokenizer([text])[0].tolist()) for text in texts]


def test_truncation_is_seen_with_any_tokenizer(tmp_path: Path):
    """Eight places: six words beside the start and the end; "clips" mode keeps one more back."""
    texts = ["", "ring", "ring " * 5, "ring dot " * 3, "ring " * 7, "dot " * 40]
    expected = [False, False, False, False, True, True]
    assert cut(open_clip.SimpleTokenizer(context_length=8), texts) == expected
    assert cut(hugging_face(tmp_path / "r", "right"), texts) == expected
    assert cut(hugging_face(tmp_path / "l", "left"), texts) == expected
    assert cut(hugging_face(tmp_path / "c", "right", "clips"), texts) == [
        False, False, False, True, True, True,
    ]  # fmt: skip


def test_weights_that_are_not_finite_stop(clip_path: Path, refs: list[ImageRef]):
    similarity = load(clip_path)
    with torch.no_grad():
        similarity._model.text_projection.fill_(math.nan)
    with pytest.raises(NumericalError, match=r"'A red ring\.'"):
        similarity.image_text([refs[0]], TEXTS[:1])


def test_close_twice(clip_path: Path):
    similarity = load(clip_path)
    similarity.close()
    similarity.close()


# ---------------------------------------------------------------- what is refused


def refusal(kind: type[CSRError], model: object, pretrained: object = None) -> str:
    config = Config(model=str(model), pretrained=str(pretrained) if pretrained else None)
    with pytest.raises(kind) as caught:
        build(config)
    return str(caught.value)


def test_wrong_names():
    assert "Did you mean ViT-L-14-336" in refusal(ConfigError, "ViT-L-14-366")
    assert "needs `pretrained`: one of the tags openai" in refusal(ConfigError, "ViT-L-14-336")
    message = refusal(ConfigError, "ViT-L-14-336", "opanai")
    assert "neither a file nor a tag" in message
    assert "openai" in message


def test_wrong_directories(clip_path: Path, tmp_path: Path):
    assert "no CLIP directory" in refusal(ModelError, f"local-dir:{tmp_path}/none")
    assert "no CLIP directory" in refusal(ModelError, tmp_path / "none")
    assert "no open_clip_config.json" in refusal(ModelError, tmp_path)
    (tmp_path / "open_clip_config.json").write_text("{}")
    assert "no 'model_cfg'" in refusal(ModelError, tmp_path)
    (tmp_path / "open_clip_config.json").write_text("{")
    assert "cannot be read as JSON" in refusal(ModelError, tmp_path)
    assert "brings its own weights" in refusal(ConfigError, clip_path, "openai")


def test_pickled_weights_are_refused_even_beside_safetensors(clip_path: Path, tmp_path: Path):
    shutil.copy(clip_path / "open_clip_config.json", tmp_path)
    pickled = tmp_path / "open_clip_pytorch_model.bin"
    pickled.write_bytes(b"not even a pickle")
    assert "Pickled weights" in refusal(ModelError, tmp_path)
    assert "Pickled weights" in refusal(ModelError, "ViT-B-32", pickled)
    # open_clip by itself would prefer the .bin to a file of this name.
    shutil.copy(clip_path / "open_clip_model.safetensors", tmp_path / "any_name.safetensors")
    assert load(tmp_path).text_text(TEXTS[:1], TEXTS[:1]) == pytest.approx([1.0])


def test_weights_of_another_model_are_a_clear_error(clip_path: Path, tmp_path: Path):
    path = Path(shutil.copytree(clip_path, tmp_path / "wider"))
    config = json.loads((path / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["width"] = 64
    (path / "open_clip_config.json").write_text(json.dumps(config))
    message = refusal(ModelError, path)
    assert "cannot build" in message
    assert "belong together" in message


def test_an_unreachable_hub_is_a_clear_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "cannot be fetched" in refusal(ModelError, "hf-hub:no-such-owner/no-such-model")
    assert "cannot be fetched" in refusal(ModelError, "ViT-L-14-336", "openai")
