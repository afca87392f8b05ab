"""The user's records become prompts: an image and what is asked of it.

Readers (`csr/prompt_files.py`) bring the records of any format into one shape. A record has `id`
(text or whole number, unique), `image` (a path below the image folder, or bytes) and `input` (the
text); optionally `reference` (a reference answer) and `dataset` (where it comes from). Other keys
are an error, since they would have no effect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from csr.errors import ConfigError, DataError, shown
from csr.prompt_files import EmbeddedImage, RawRecords
from csr.prompt_images import ImagePlace, KeptImage, PromptImages
from csr.protocols import Progress
from csr.records import (
    MAX_TEXT_CHARACTERS,
    BadRecordError,
    Entry,
    Record,
    prompt_id,
    question,
    read_entries,
    text_field,
)
from csr.skip_reasons import NO_FAULT
from csr.types import Prompt, SkipReason

BadRecordPolicy = Literal["error", "skip"]
PromptMode = Literal["fresh", "same"]

PromptCheck = Callable[[Prompt, tuple[int, int]], None]
"""A sampler's own test of a prompt and its image's (width, height) in pixels. BadRecordError says
why its policy cannot be asked; the place in the file is added to that."""

_KEYS = ("id", "image", "input", "reference", "dataset")
_NUM_REQUIRED = 3
"""Of these keys, the first ones."""
_NUM_TOLD = 3
"""Bad records that an error quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRecord:
    """A record left out, as the quarantine table keeps it."""

    position: int
    """Its line, or its place in the JSON list, from 1."""
    prompt_id: str | None
    """None where it has no usable one."""
    image: str | None
    """As the prompt file names it."""
    reason: SkipReason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPrompts:
    """Records in the data = prompts + bad records."""

    prompts: tuple[Prompt, ...]
    """In file order."""
    bad_records: tuple[BadRecord, ...] = ()
    """In file order; with those that are left out without being at fault."""
    kept_images: tuple[KeptImage, ...] = ()
    """What must be written before the prompts' images are where their references say."""

    @property
    def skipped(self) -> dict[SkipReason, int]:
        """How many records were left out for each reason."""
        return dict(Counter(bad.reason for bad in self.bad_records))


@dataclass(frozen=True, slots=True)
class _Record:
    """One record whose own fields are in order; its image has not been looked at."""

    order: int
    """Its place among all entries."""
    entry: Entry
    prompt_id: str
    image: str | EmbeddedImage
    text: str
    reference: str | None
    dataset: str


def load_prompts(
    path: Path,
    image_root: Path,
    *,
    on_bad_record: BadRecordPolicy = "error",
    max_bad_share: float = 0.05,
    check: PromptCheck | None = None,
    progress: Progress | None = None,
) -> LoadedPrompts:
    """The prompts in one JSON or JSON Lines file of CSR's own form; see `checked_prompts`."""
    raw = RawRecords(place=str(path), entries=read_entries(path), image_root=image_root)
    return checked_prompts(
        raw,
        on_bad_record=on_bad_record,
        max_bad_share=max_bad_share,
        check=check,
        progress=progress,
    )


def checked_prompts(
    raw: RawRecords,
    *,
    image_place: ImagePlace | None = None,
    on_bad_record: BadRecordPolicy = "error",
    max_bad_share: float = 0.05,
    check: PromptCheck | None = None,
    progress: Progress | None = None,
) -> LoadedPrompts:
    """The prompts of the records, every image checked and hashed; each distinct image once.

    `check` looks at each prompt that is well-formed and has its image. `image_place` says where
    an image is kept whose bytes the data hold; nothing is written there yet.

    DataError for the first record that cannot be used; with `on_bad_record` "skip" such records
    are left out, up to `max_bad_share` of all, and DataError tells their number above that. What
    is left out without a fault (`NO_FAULT`) counts for neither. `progress` is called with (images
    done, all images).
    """
    root = raw.image_root
    require_image_folder(root)
    aside = _SetAside(on_bad_record)
    records = list(_records(raw.entries, aside))
    images = PromptImages(root, image_place, raw.image_prefix)
    prompts = tuple(_prompts(records, images, aside, check, progress))
    _check_share(raw.place, aside.bad, len(raw.entries), max_bad_share)
    hashes = dict.fromkeys(prompt.image.sha256 for prompt in prompts)
    return LoadedPrompts(
        prompts=prompts,
        bad_records=tuple(aside.bad),
        kept_images=tuple(kept for sha256 in hashes if (kept := images.kept(sha256))),
    )


def require_image_folder(root: Path | None) -> None:
    """DataError where an image folder is named that is none."""
    if root is not None and not root.is_dir():
        raise DataError(
            f"the image folder {root} does not exist or is no folder. Name the folder that "
            "the prompts' image paths start from."
        )


class _SetAside:
    """Keeps the records that cannot be used, or stops at the first of them."""

    def __init__(self, on_bad_record: BadRecordPolicy) -> None:
        self._found: list[tuple[int, BadRecord]] = []
        self._policy = on_bad_record

    @property
    def bad(self) -> list[BadRecord]:
        """In the order of the data."""
        return [bad for _, bad in sorted(self._found, key=lambda found: found[0])]

    def __call__(self, order: int, entry: Entry, error: BadRecordError) -> None:
        """Leave out the entry that is the `order`-th."""
        if self._policy == "error" and error.reason not in NO_FAULT:
            raise error
        value = entry.value if isinstance(entry.value, dict) else {}
        bad = BadRecord(
            position=entry.position,
            prompt_id=_cell(value.get("id")),
            image=_cell(value.get("image")),
            reason=error.reason,
            message=str(error),
        )
        self._found.append((order, bad))


def _cell(value: object) -> str | None:
    """What a table can hold of a bad record's field."""
    if isinstance(value, EmbeddedImage):
        value = value.name
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)[:MAX_TEXT_CHARACTERS]
    return text.encode("utf-8", "backslashreplace").decode()


def _records(entries: Sequence[Entry], aside: _SetAside) -> Iterator[_Record]:
    """The well-formed records. Of several with one id, the first counts."""
    first: dict[str, str] = {}
    for order, entry in enumerate(entries):
        try:
            record = _record(order, entry)
            if record.prompt_id in first:
                raise BadRecordError(
                    f"{entry.where}: the id {shown(record.prompt_id)} stands already in "
                    f"{first[record.prompt_id]}. Give each record its own.",
                    SkipReason.DUPLICATE_ID,
                )
        except BadRecordError as error:
            aside(order, entry, error)
        else:
            first[record.prompt_id] = entry.where
            yield record


def _prompts(
    records: Sequence[_Record],
    images: PromptImages,
    aside: _SetAside,
    check: PromptCheck | None,
    progress: Progress | None,
) -> Iterator[Prompt]:
    """The records whose images can be used, and which the policy can be asked."""
    for done, record in enumerate(records, start=1):
        try:
            yield _checked_prompt(record, images, check)
        except BadRecordError as error:
            message = f"{record.entry.where} (id {shown(record.prompt_id)}): {error}"
            aside(record.order, record.entry, BadRecordError(message, error.reason))
        if progress is not None:
            progress(done, len(records))


def _checked_prompt(record: _Record, images: PromptImages, check: PromptCheck | None) -> Prompt:
    """The prompt. BadRecordError, without the record's place, where it cannot be used."""
    ref, size = images.look_at(record.image)
    prompt = Prompt(
        prompt_id=record.prompt_id,
        text=record.text,
        image=ref,
        reference=record.reference,
        dataset=record.dataset,
    )
    if check is not None:
        check(prompt, size)
    return prompt


def _check_share(place: str, aside: Sequence[BadRecord], num: int, max_share: float) -> None:
    """DataError where too many records are bad, or none is left."""
    bad = [each for each in aside if each.reason not in NO_FAULT]
    total = num - len(aside) + len(bad)
    if len(aside) < num and len(bad) <= max_share * total:
        return
    what = (
        f"{len(bad)} of {total} records cannot be used, more than the share of {max_share:g} that "
        "max_bad_share allows"
        if len(aside) < num
        else f"none of the {num} records can be used"
    )
    told = bad or aside
    found = Counter(each.reason.value for each in told)
    counts = sorted(found.items(), key=lambda count: (-count[1], count[0]))
    raise DataError(
        f"{place}: {what} ({', '.join(f'{reason} {count}' for reason, count in counts)}). "
        f"The first: {' '.join(each.message for each in told[:_NUM_TOLD])}"
    )


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


def _record(order: int, entry: Entry) -> _Record:
    """The record with every field checked. BadRecordError says what is wrong."""
    value, where = entry.record(), entry.where
    unknown = sorted(value.keys() - set(_KEYS))
    if unknown:
        missing = [key for key in _KEYS[:_NUM_REQUIRED] if key not in value]
        texts = [shown(key) for key in unknown if isinstance(value[key], str)]
        if missing and texts:
            told = " or ".join(texts[:_NUM_TOLD])
            raise BadRecordError(f"{where}: {missing[0]!r} is missing; is it {told}? Rename it.")
        told = ", ".join(shown(key) for key in unknown[:_NUM_TOLD])
        raise BadRecordError(
            f"{where}: unknown keys {told}{', ...' if len(unknown) > _NUM_TOLD else ''}. A record "
            f"may have {', '.join(_KEYS)}; remove the others."
        )
    image = value.get("image")
    return _Record(
        order=order,
        entry=entry,
        prompt_id=prompt_id(value, where),
        image=image if isinstance(image, EmbeddedImage) else text_field(value, "image", where),
        text=question(value, where),
        reference=_optional(value, "reference", where),
        dataset=_optional(value, "dataset", where) or "",
    )


def _optional(value: Record, key: str, where: str) -> str | None:
    """A text field that may be absent, null or empty."""
    return None if value.get(key) in (None, "") else text_field(value, key, where)
