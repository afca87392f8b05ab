"""Where a prompt becomes text and token ids. Nothing else applies a chat template.

Sampler, scorer and trainer all go through here, so what the policy is trained on
is what it was asked. No token id and no model family is named: everything is read
from the checkpoint's own processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from csr.errors import DataError, EnvironmentFault, ModelError

if TYPE_CHECKING:
    from PIL.Image import Image


def load_processor(model_path: str) -> Any:
    """The checkpoint's processor: its tokenizer, image processor and chat template.

    `model_path` is a directory or a hub id. ModelError where there is no processor,
    EnvironmentFault where the processor needs a package that is not installed.
    """
    from transformers import AutoProcessor

    if not Path(model_path).is_dir() and _looks_like_path(model_path):
        raise ModelError(
            f"No model directory at {model_path!r}: the path does not exist. Give a checkpoint "
            "directory, or a hub id of the form 'owner/name'."
        )
    try:
        processor = AutoProcessor.from_pretrained(model_path, trust_remote_code=False)
    except ImportError as error:
        raise EnvironmentFault(
            f"The processor of {model_path} needs a package that is missing: {_first_line(error)}"
        ) from None
    except Exception as error:  # transformers raises a dozen unrelated types here
        raise _cannot_load(model_path, error) from None
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise ModelError(
            f"{model_path} has no image processor (found a {type(processor).__name__} only). A "
            "vision-language checkpoint needs preprocessor_config.json or processor_config.json "
            "beside its weights: save the model's processor into the directory."
        )
    return processor


def render_prompt(processor: Any, text: str, *, with_image: bool = True) -> str:
    """The text of one user turn (image first, then `text`), up to where the response begins.

    ModelError without a chat template; DataError where `text` holds an image marker.
    """
    _refuse_markers(_markers(processor), text, "prompt")
    turn = _user_turn(text, with_image=with_image)
    return _rendered(processor, [turn], add_generation_prompt=True)


def prompt_token_ids(processor: Any, text: str, *, with_image: bool = True) -> list[int]:
    """The rendered prompt's token ids with ONE image placeholder, not yet expanded.

    Without the image there is none. ModelError where the template yields another number.
    """
    token_ids = _token_ids(processor, render_prompt(processor, text, with_image=with_image))
    placeholders, images = token_ids.count(image_token_id(processor)), int(with_image)
    if placeholders != images:
        raise ModelError(
            f"The chat template of {_name(processor)} gives {placeholders} image placeholders for "
            f"{images or 'no'} image{'' if images else 's'}; it must give exactly {images}. Check "
            "chat_template.jinja against the tokenizer's image token."
        )
    return token_ids


def expanded_inputs(
    processor: Any, texts: Sequence[str], images: Sequence[Image | None]
) -> dict[str, Any]:
    """The processor's own expansion of one image, or none, and one prompt text a sample.

    Returns `input_ids` (a list of int lists, not padded, each image placeholder expanded
    to as many tokens as the image has), any other per-token entry in the same form, and
    the image entries (`pixel_values`, ...) as the tensors the model's forward takes, all
    images together in order. There is no attention mask: no entry is padding.
    """
    seen = [(text, image) for text, image in zip(texts, images, strict=True) if image is not None]
    inputs = _with_images(processor, seen) if seen else {"input_ids": []}
    for row, (text, image) in enumerate(zip(texts, images, strict=True)):
        if image is None:
            token_ids = prompt_token_ids(processor, text, with_image=False)
            for name, part in inputs.items():
                if isinstance(part, list):  # one value a token; plain text has type 0
                    part.insert(row, token_ids if name == "input_ids" else [0] * len(token_ids))
    return inputs


def _with_images(processor: Any, seen: Sequence[tuple[str, Image]]) -> dict[str, Any]:
    rendered = [render_prompt(processor, text) for text, _ in seen]
    flags = {adds_special_tokens(processor, text) for text in rendered}
    assert len(flags) == 1, "one template either writes the BOS text or it does not"
    batch = processor(
        text=rendered,
        images=[[image] for _, image in seen],
        text_kwargs={"add_special_tokens": flags.pop(), "padding": False, "truncation": False},
        images_kwargs={"return_tensors": "pt"},
    )
    return {name: batch[name] for name in batch if name != "attention_mask"}


def beginning_token_ids(processor: Any, text: str, beginning: str) -> list[int]:
    """The token ids of `beginning` right behind the prompt `text`, nothing added.

    Empty where the tokenizer would join it with the prompt's last token. DataError where it
    holds an image marker or the end token.
    """
    _refuse_markers([*_markers(processor), processor.tokenizer.eos_token], beginning, "answer")
    prompt = render_prompt(processor, text)
    before, all_ids = (_token_ids(processor, each) for each in (prompt, prompt + beginning))
    return all_ids[len(before) :] if all_ids[: len(before)] == before else []


def response_token_ids(processor: Any, text: str, response: str) -> list[int]:
    """The token ids of `response` as an answer to the prompt `text`, its end token included.

    The chat template decides what stands before it, such as a space, and which token ends it: that
    need not be the tokenizer's (Gemma's ends a turn). Where the template writes none, as that of
    LLaVA-1.5 does not, the tokenizer's is added. DataError where the response holds an image marker
    or an end token; ModelError where the template writes answers behind other prompts than the one
    that is sampled from.
    """
    tokenizer = processor.tokenizer
    markers = [*_markers(processor), tokenizer.eos_token]
    _refuse_markers(markers, response, "response")
    prompt = render_prompt(processor, text)
    answer = {"role": "assistant", "content": [{"type": "text", "text": response}]}
    whole = _rendered(processor, [_user_turn(text), answer], add_generation_prompt=False)
    written = _behind(prompt, whole, response.strip())
    said, end, end_id = _cut_at_end(tokenizer, written or "")
    _refuse_markers([end], response, "response")
    before, all_ids = (_token_ids(processor, each) for each in (prompt, prompt + said))
    if written is None or all_ids[: len(before)] != before:
        raise ModelError(
            f"The chat template of {_name(processor)} does not write an answer behind the prompt "
            "that it writes for sampling, so references cannot be used with it. Mend its "
            "chat_template.jinja."
        )
    return [*all_ids[len(before) :], end_id]


def _behind(prompt: str, whole: str, response: str) -> str | None:
    """What the template writes behind the prompt; None where it writes another prompt.

    White space around the prompt's words may differ, as in LLaVA-OneVision's: the answer then
    begins where sampling begins.
    """
    if whole.startswith(prompt):
        return whole.removeprefix(prompt)
    before, found, after = whole.rpartition(response) if response else ("", "", "")
    return found + after if found and before.split() == prompt.split() else None


def _cut_at_end(tokenizer: Any, written: str) -> tuple[str, str, int]:
    """(text before the first special token, that token, its id); the tokenizer's where is none."""
    specials = {str(t): i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    found = [(place, token) for token in specials if (place := written.find(token)) >= 0]
    if not found:
        return written.rstrip(), tokenizer.eos_token, tokenizer.eos_token_id
    place, token = min(found)
    return written[:place].rstrip(), token, specials[token]


def adds_special_tokens(processor: Any, rendered: str) -> bool:
    """Whether the tokenizer must add its BOS: not where the template already wrote it."""
    bos = processor.tokenizer.bos_token
    return not (bos and rendered.startswith(bos))


def image_token_id(processor: Any) -> int:
    """The id of the image placeholder token."""
    token_id = getattr(processor, "image_token_id", None)
    if token_id is None and getattr(processor, "image_token", None):
        token_id = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    if token_id is None:
        raise ModelError(
            f"{_name(processor)} declares no image token, so images cannot be placed in its "
            "prompts. Save the model's own processor into the directory."
        )
    return int(token_id)


def media_token_ids(processor: Any) -> tuple[int, ...]:
    """Every token id that stands for an image or a video: what a response must never hold.

    An image's placeholder in a prompt need not be what its features replace (Gemma's is not).
    """
    others = [getattr(processor, f"{kind}_token_id", None) for kind in ("video", "audio")]
    others += getattr(processor, "image_token_ids", None) or []
    known = len(processor.tokenizer)
    found = [image_token_id(processor), *(int(i) for i in others if i is not None and i < known)]
    return tuple(dict.fromkeys(found))


def _token_ids(processor: Any, rendered: str) -> list[int]:
    add_special = adds_special_tokens(processor, rendered)
    return list(processor.tokenizer(rendered, add_special_tokens=add_special)["input_ids"])


def _user_turn(text: str, *, with_image: bool = True) -> dict[str, Any]:
    said = {"type": "text", "text": text}
    return {"role": "user", "content": [{"type": "image"}, said] if with_image else [said]}


def _rendered(processor: Any, turns: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
    if not getattr(processor, "chat_template", None):
        raise ModelError(
            f"{_name(processor)} has no chat template, so a prompt cannot be written the way the "
            "model learned it. Add its chat_template.jinja to the directory."
        )
    # `processor_kwargs` change nothing without tokenising; some processors warn when it is empty.
    quiet = {"padding": False}
    try:
        rendered = processor.apply_chat_template(
            turns,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
            processor_kwargs=quiet,
        )
    except TemplateError as error:
        raise ModelError(
            f"The chat template of {_name(processor)} fails ({type(error).__name__}: {error}). "
            "Mend its chat_template.jinja."
        ) from error
    return str(rendered)


def _refuse_markers(markers: Sequence[str], text: str, what: str) -> None:
    for marker in markers:
        if marker in text:
            raise DataError(
                f"The {what} {_shortened(text)!r} contains {marker!r}, which stands for an image "
                "or the end in this model. Remove it: the model's chat template places it."
            )


def _markers(processor: Any) -> list[str]:
    kinds = ("image", "video", "audio")
    markers = [marker for kind in kinds if (marker := getattr(processor, f"{kind}_token", None))]
    inner = [i for i in getattr(processor, "image_token_ids", None) or [] if i is not None]
    return [*markers, *processor.tokenizer.convert_ids_to_tokens(inner)] if inner else markers


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") != 1


def _cannot_load(model_path: str, error: Exception) -> ModelError:
    if Path(model_path).is_dir():
        # transformers goes on about the hub, which was not asked.
        reason = _first_line(error).partition(". If you were trying")[0]
        return ModelError(
            f"{model_path} has no processor that can be loaded ({reason}). A "
            "vision-language checkpoint needs processor_config.json or preprocessor_config.json "
            "and its tokenizer files beside the weights: save the model's processor there."
        )
    return ModelError(
        f"The processor of {model_path!r} is neither in a local directory nor on a hub that can "
        f"be reached ({type(error).__name__}). Check the name and the network, or download the "
        "model elsewhere and give its directory."
    )


def _name(processor: Any) -> str:
    return str(getattr(processor.tokenizer, "name_or_path", "") or type(processor).__name__)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
