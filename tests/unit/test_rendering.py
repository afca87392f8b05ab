"""Rendering, on the processors of three families and on hand-made wrong ones."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from csr import rendering
from csr.errors import DataError, ModelError

TEMPLATE = "USER: <image> {text} ASSISTANT:"


@dataclasses.dataclass
class WordTokenizer:
    """One id a word; id 0 is the BOS, which it adds by itself."""

    bos_token: str | None = "<s>"
    name_or_path: str = "/models/hand-made"
    words: tuple[str, ...] = ("<s>", "<image>", "USER:", "Hi.", "ASSISTANT:", "<video>")

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        ids = [self.words.index(word) for word in text.split()]
        return {"input_ids": [0, *ids] if add_special_tokens else ids}

    def __len__(self) -> int:
        return len(self.words)

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.words.index(token)


class HandMadeProcessor(SimpleNamespace):
    """A processor whose template is a format string."""

    def apply_chat_template(self, turn: list[dict[str, Any]], **options: Any) -> str:
        assert options["add_generation_prompt"]
        image, text = turn[0]["content"]
        assert image == {"type": "image"}
        return str(self.chat_template.format(text=text["text"]))


def processor(template: str | None = TEMPLATE, **more: Any) -> HandMadeProcessor:
    return HandMadeProcessor(
        tokenizer=WordTokenizer(), chat_template=template, image_token="<image>", **more
    )


def test_bos_is_added_once_when_the_template_lacks_it() -> None:
    assert rendering.prompt_token_ids(processor(), "Hi.") == [0, 2, 1, 3, 4]


def test_bos_is_not_added_again_when_the_template_writes_it() -> None:
    with_bos = processor("<s> " + TEMPLATE)
    assert rendering.prompt_token_ids(with_bos, "Hi.") == [0, 2, 1, 3, 4]


@pytest.mark.parametrize("text", ["What is <image> ?", "<image>", "a <video> of it"])
def test_a_prompt_that_holds_a_media_marker_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"stands for an image.*Remove it"):
        rendering.render_prompt(processor(video_token="<video>"), text)


def test_without_a_chat_template_the_error_names_the_directory() -> None:
    with pytest.raises(ModelError, match=r"/models/hand-made has no chat template.*Add its"):
        rendering.render_prompt(processor(None), "Hi.")


@pytest.mark.parametrize(("template", "count"), [("{text}", 0), ("<image> <image> {text}", 2)])
def test_a_template_must_place_the_image_exactly_once(template: str, count: int) -> None:
    with pytest.raises(ModelError, match=f"gives {count} image placeholders"):
        rendering.prompt_token_ids(processor(template), "Hi.")


def test_media_tokens_are_the_image_and_those_video_tokens_that_exist() -> None:
    assert rendering.media_token_ids(processor(video_token_id=5)) == (1, 5)
    assert rendering.media_token_ids(processor(video_token_id=99)) == (1,)


def test_what_an_images_features_replace_is_its_token_too() -> None:
    """Gemma's placeholder begins an image; its features replace other tokens."""
    gemma = processor(image_token_ids=[3, None])
    gemma.tokenizer.convert_ids_to_tokens = lambda ids: [WordTokenizer.words[i] for i in ids]
    assert rendering.media_token_ids(gemma) == (1, 3)
    with pytest.raises(DataError, match=r"'Hi\.', which stands for an image"):
        rendering.render_prompt(gemma, "Hi.")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        rendering.load_processor(str(tmp_path / "nothing"))


def test_an_unreachable_hub_id_gives_one_plain_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="nor on a hub that can be reached") as caught:
        rendering.load_processor("nobody/no-such-model")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_directory_without_processor_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="processor"):
        rendering.load_processor(str(tmp_path))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from tests.tiny_models import make_llava, make_qwen2_5_vl, make_smolvlm

    root = tmp_path_factory.mktemp("checkpoints")
    makers = {"llava": make_llava, "qwen2_5_vl": make_qwen2_5_vl, "smolvlm": make_smolvlm}
    return {name: make(root / name) for name, make in makers.items()}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "smolvlm"])
def test_the_expansion_repeats_the_one_placeholder_and_keeps_all_else(
    checkpoints: dict[str, Path], family: str
) -> None:
    loaded = rendering.load_processor(str(checkpoints[family]))
    images = [Image.new("RGB", (32, 32)), Image.new("RGB", (64, 96), "red")]
    texts = ["Describe the image.", "What is in the picture?"]
    inputs = rendering.expanded_inputs(loaded, texts, images)
    marker = rendering.image_token_id(loaded)
    bos = loaded.tokenizer.bos_token_id
    for text, expanded in zip(texts, inputs["input_ids"], strict=True):
        short = rendering.prompt_token_ids(loaded, text)
        assert short.count(marker) == 1
        assert expanded.count(marker) > 1
        start = short.index(marker)
        tail = short[start + 1 :]
        assert expanded[:start] == short[:start]
        assert expanded[-len(tail) :] == tail
        assert bos is None or expanded.count(bos) == 1
    assert len(inputs["pixel_values"]) in (2, 16 + 48)  # images, or their 8-pixel patches


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "smolvlm"])
def test_a_reference_is_tokenised_as_the_answer_to_its_prompt(
    checkpoints: dict[str, Path], family: str
) -> None:
    loaded = rendering.load_processor(str(checkpoints[family]))
    tokenizer, text, answer = loaded.tokenizer, "Describe the image.", "A red circle. It is 3.5."
    ids = rendering.response_token_ids(loaded, text, answer)
    assert ids.count(tokenizer.eos_token_id) == 1
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]).strip() == answer
    whole = loaded.apply_chat_template(
        [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ],
        tokenize=False,
    )
    add_special = rendering.adds_special_tokens(loaded, whole)
    written = tokenizer(whole, add_special_tokens=add_special)["input_ids"]
    asked = rendering.prompt_token_ids(loaded, text)
    assert written[: len(asked) + len(ids)] == asked + ids


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["It ends.</s> No.", "An <image> of it."])
def test_a_reference_that_holds_a_special_token_is_refused(
    checkpoints: dict[str, Path], wrong: str
) -> None:
    loaded = rendering.load_processor(str(checkpoints["llava"]))
    with pytest.raises(DataError, match="which stands for an image or the end"):
        rendering.response_token_ids(loaded, "Describe the image.", wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "added"),
    [
        ("{% if add_generation_prompt %}<image>ASK:{% else %}<image>ASK: A. {% endif %}", True),
        ("{% if add_generation_prompt %}<image>ASK:{% else %}<image>TELL: A.{% endif %}", False),
    ],
)
def test_a_template_without_end_gets_one_and_one_that_goes_elsewhere_is_refused(
    checkpoints: dict[str, Path], template: str, added: bool
) -> None:
    loaded = rendering.load_processor(str(checkpoints["llava"]))
    loaded.chat_template = template
    if added:
        ids = rendering.response_token_ids(loaded, "?", "A.")
        assert loaded.tokenizer.decode(ids) == " A.</s>"
    else:
        with pytest.raises(ModelError, match="does not write an answer behind the prompt"):
            rendering.response_token_ids(loaded, "?", "A.")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "smolvlm"])
def test_samples_with_and_without_an_image_stand_together(
    checkpoints: dict[str, Path], family: str
) -> None:
    loaded = rendering.load_processor(str(checkpoints[family]))
    image, text = Image.new("RGB", (32, 32)), "Describe the image."
    alone = rendering.expanded_inputs(loaded, [text], [image])
    mixed = rendering.expanded_inputs(loaded, [text] * 3, [None, image, None])
    blind = rendering.prompt_token_ids(loaded, text, with_image=False)
    assert rendering.image_token_id(loaded) not in blind
    assert text in loaded.tokenizer.decode(blind)
    assert mixed["input_ids"] == [blind, alone["input_ids"][0], blind]
    assert mixed["pixel_values"].equal(alone["pixel_values"])
    for part in mixed.values():
        if isinstance(part, list):
            assert [len(row) for row in part] == [len(row) for row in mixed["input_ids"]]
    assert rendering.expanded_inputs(loaded, [text], [None]) == {"input_ids": [blind]}


def test_a_template_that_places_an_image_where_there_is_none_is_refused() -> None:
    with_marker = processor()
    with_marker.apply_chat_template = lambda turn, **options: "USER: <image> Hi."
    with pytest.raises(ModelError, match=r"gives 1 image placeholders for no images"):
        rendering.prompt_token_ids(with_marker, "Hi.", with_image=False)
