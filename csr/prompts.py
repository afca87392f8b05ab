"""Reading the user's prompts: an image and what is asked of it, one record each.

Two shapes of file, told apart by content, not by name:

- JSON as CSR published it: `[{"id": 42, "image": "000000000042.jpg", "input": "Describe ..."}]`
- JSON Lines: one such object a line.

A record has `id` (text or whole number, unique), `image` (a path below the image
folder) and `input` (the text); optionally `reference` (a reference answer) and
`dataset` (where it comes from). Other keys are an error, since they would have no effect.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from csr.errors import ConfigError, DataError
from csr.images import image_ref
from csr.protocols import Progress
from csr.types import ImageRef, Prompt, SkipReason

MAX_PROMPT_CHARACTERS = 8192
"""Characters of one text. The policy's context is 2,048 to 4,096 tokens; a longer text
is a mistake in the file."""

MAX_FILE_BYTES = 1024**3
"""Bytes of a prompt file, which is held in memory. CSR's 12,856 prompts take 3 MB."""

IMAGE_MARKER = "<image>"

BadImagePolicy = Literal["error", "skip"]
PromptMode = Literal["fresh", "same"]

_KEYS = ("id", "image", "input", "reference", "dataset")


@dataclass(frozen=True, slots=True, kw_only=True)
class BadImage:
    """A prompt left out because its image cannot be used."""

    prompt_id: str
    image: str
    """As the prompt file names it."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPrompts:
    """Records in the file = prompts + skipped."""

    prompts: tuple[Prompt, ...]
    """In file order."""
    skipped: dict[SkipReason, int]
    bad_images: tuple[BadImage, ...]
    """What the skipped ones are, for the quarantine table."""


@dataclass(frozen=True, slots=True)
class _Record:
    """One record as it stands in the file; `where` is how errors name its place."""

    where: str
    prompt_id: str
    image: str
    text: str
    reference: str | None
    dataset: str


def load_prompts(
    path: Path,
    image_root: Path,
    *,
    on_bad_image: BadImagePolicy = "error",
    progress: Progress | None = None,
) -> LoadedPrompts:
    """The prompts in `path`, every image checked and hashed; each distinct image once.

    `on_bad_image` "skip" leaves out prompts whose image is missing or unusable and counts
    them as UNREADABLE_IMAGE. DataError for anything else that is wrong, and where no
    prompt is left. `progress` is called with (prompts done, all prompts).
    """
    if not image_root.is_dir():
        raise DataError(
            f"the image folder {image_root} does not exist or is no folder. Name the folder that "
            "the prompts' image paths start from."
        )
    records = [_record(value, where) for where, value in _values(path)]
    _refuse_duplicates(records, path)
    prompts: list[Prompt] = []
    bad: list[BadImage] = []
    known: dict[str, ImageRef | DataError] = {}
    for done, record in enumerate(records, start=1):
        if record.image not in known:
            known[record.image] = _checked_image(record.image, image_root)
        image = known[record.image]
        if isinstance(image, ImageRef):
            prompts.append(_prompt(record, image))
        elif on_bad_image == "error":
            raise DataError(f"{record.where} (id {record.prompt_id!r}): {image}") from image
        else:
            bad.append(BadImage(prompt_id=record.prompt_id, image=record.image, message=str(image)))
        if progress is not None:
            progress(done, len(records))
    if not prompts:
        raise DataError(
            f"{path}: none of the {len(records)} prompts has a usable image; the first: "
            f"{bad[0].message} Check the image folder {image_root}."
        )
    skipped = {SkipReason.UNREADABLE_IMAGE: len(bad)} if bad else {}
    return LoadedPrompts(prompts=tuple(prompts), skipped=skipped, bad_images=tuple(bad))


def select_prompts(
    prompts: Sequence[Prompt], iteration: int, num: int, mode: PromptMode
) -> list[Prompt]:
    """The prompts of one iteration, from 1.

    "fresh" takes the slice [(iteration-1)*num : iteration*num] and starts over at the end of
    the list; "same" takes the first `num` every time, as the paper does. Never more than
    there are, so that no iteration sees a prompt twice.
    """
    assert iteration >= 1, iteration
    if num < 1:
        raise ConfigError(f"{num} prompts an iteration cannot work. Ask for at least 1.")
    num = min(num, len(prompts))
    first = (iteration - 1) * num if mode == "fresh" else 0
    return [prompts[(first + place) % len(prompts)] for place in range(num)]


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    """Each record's JSON value and its place, from either shape of file."""
    text = _text(path)
    if text.lstrip().startswith("["):
        for number, value in enumerate(_parse(text, str(path)), start=1):
            yield f"{path}, record {number}", value
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _parse(line, where)


def _text(path: Path) -> str:
    """The file's text without a byte order mark."""
    try:
        # A device would be read without end, and a pipe waited for.
        if path.exists() and not path.is_file():
            raise DataError(f"the prompt file {path} is no file. Name a JSONL or JSON file.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(
                f"the prompt file {path} is larger than {MAX_FILE_BYTES:,} bytes. Split it."
            )
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"the prompt file {path} does not exist. Check its path.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"the prompt file {path} is not UTF-8 text ({error}). Save it as UTF-8 JSON."
        ) from error
    except OSError as error:
        raise DataError(
            f"the prompt file {path} cannot be read ({error.strerror}). Check its permissions."
        ) from error
    if text.strip() in ("", "[]"):
        raise DataError(f"the prompt file {path} is empty. It needs at least one record.")
    return text


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_repeated_keys)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where}: not valid JSON ({error}). Write a JSON list of records, or one record a "
            "line."
        ) from error


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two values under one key, one would go unnoticed."""
    keys = [key for key, _ in pairs]
    repeated = [key for key in keys if keys.count(key) > 1]
    if repeated:
        raise ValueError(f"the key {repeated[0]!r} stands twice")
    return dict(pairs)


def _record(value: Any, where: str) -> _Record:
    """A record with every field checked."""
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: a record must be an object, not {type(value).__name__}. Write "
            '{"id": ..., "image": ..., "input": ...}.'
        )
    unknown = sorted(value.keys() - set(_KEYS))
    if unknown:
        raise DataError(
            f"{where}: unknown keys {unknown}. A record may have {', '.join(_KEYS)}; remove the "
            "others."
        )
    prompt_id = value.get("id")
    if isinstance(prompt_id, int) and not isinstance(prompt_id, bool):
        value = value | {"id": str(prompt_id)}
    return _Record(
        where=where,
        prompt_id=_string(value, "id", where),
        image=_string(value, "image", where),
        text=_without_marker(_string(value, "input", where), where),
        reference=_string(value, "reference", where) if value.get("reference") else None,
        dataset=_string(value, "dataset", where) if value.get("dataset") else "",
    )


def _string(value: dict[str, Any], key: str, where: str) -> str:
    """A text field that is there, not blank, not too long, and free of what breaks readers."""
    text = value.get(key)
    if not isinstance(text, str):
        given = "is missing" if key not in value else f"is {type(text).__name__}"
        wanted = "text or a whole number" if key == "id" else "text"
        raise DataError(f"{where}: {key!r} {given}, and must be {wanted}. Mend the record.")
    if not text.strip():
        raise DataError(f"{where}: {key!r} is blank. Fill it in, or remove the record.")
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise DataError(
            f"{where}: {key!r} has {len(text):,} characters, and at most "
            f"{MAX_PROMPT_CHARACTERS:,} can work. Shorten it."
        )
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(
            f"{where}: {key!r} holds a NUL character or half of a surrogate pair, which tokenizers "
            "and tables cannot hold. Remove it."
        )
    return text


def _without_marker(text: str, where: str) -> str:
    """The text without one LLaVA-style image marker at its start or end.

    Templates belong to the sampler, which adds the marker that its model wants; a second
    one would be read as a second image.
    """
    text = text.strip()
    if text.startswith(IMAGE_MARKER):
        text = text.removeprefix(IMAGE_MARKER).strip()
    else:
        text = text.removesuffix(IMAGE_MARKER).strip()
    if IMAGE_MARKER in text:
        raise DataError(
            f"{where}: 'input' has {IMAGE_MARKER!r} inside the text. One marker at the start or "
            "end is understood; remove the others."
        )
    if not text:
        raise DataError(f"{where}: 'input' is only an image marker. Say what is asked.")
    return text


def _refuse_duplicates(records: Sequence[_Record], path: Path) -> None:
    first: dict[str, str] = {}
    repeated = []
    for record in records:
        if record.prompt_id in first:
            repeated.append(f"{record.prompt_id!r} ({first[record.prompt_id]}; {record.where})")
        first.setdefault(record.prompt_id, record.where)
    if repeated:
        more = f" and {len(repeated) - 5} more" if len(repeated) > 5 else ""
        raise DataError(
            f"{path}: the same id stands more than once: {', '.join(repeated[:5])}{more}. Give "
            "each record its own."
        )


def _checked_image(image: str, image_root: Path) -> ImageRef | DataError:
    try:
        return image_ref(image, root=image_root)
    except DataError as error:
        return error


def _prompt(record: _Record, image: ImageRef) -> Prompt:
    return Prompt(
        prompt_id=record.prompt_id,
        text=record.text,
        image=image,
        reference=record.reference,
        dataset=record.dataset,
    )
