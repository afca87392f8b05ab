"""A fixed list of images, so that figures of different runs and papers are of the same ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from csr.errors import DataError, shown
from csr.records import read_text

T = TypeVar("T")

_TRAILING_NUMBER = re.compile(r"(\d+)$")


def read_image_ids(path: Path) -> list[str]:
    """The ids in a JSON list, or one a line; lines that begin with "#" are notes.

    DataError where it holds none, or one twice.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is no JSON list of image ids ({error}).") from None
    else:
        lines = (line.strip() for line in text.splitlines())
        values = [line for line in lines if line and not line.startswith("#")]
    for value in values:
        if type(value) not in (str, int):
            raise DataError(f"{path}: {shown(value)} is no image id. Give numbers or names.")
    ids = [_canonical(str(value)) for value in values]
    if not ids:
        raise DataError(f"{path} names no image. Give one id a line, or a JSON list.")
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise DataError(f"{path} names the image {shown(twice)} twice. Remove one.")
    return ids


def keep_listed(items: Sequence[T], image_of: Callable[[T], str], path: Path | None) -> list[T]:
    """The items whose image is listed in the file at `path`, in their own order; None keeps all.

    An image is named by its file's name, with or without its ending, or as COCO does by the
    number at the name's end. DataError where a listed image has no item.
    """
    if path is None:
        return list(items)
    listed = read_image_ids(path)
    wanted = set(listed)
    kept = [(item, _canonical(image_of(item))) for item in items]
    missing = wanted - {name for _, name in kept}
    if missing:
        first = next(name for name in listed if name in missing)
        raise DataError(
            f"{path} lists {len(missing)} of {len(listed)} images that are not there, "
            f"such as {shown(first)}. Take the list that belongs to these files."
        )
    return [item for item, name in kept if name in wanted]


def _canonical(name: str) -> str:
    """`COCO_val2014_000000000139.jpg`, `000000000139` and `139` are the same image."""
    stem = Path(name.strip()).stem if Path(name).suffix.lower() in _SUFFIXES else name.strip()
    number = _TRAILING_NUMBER.search(stem)
    is_coco = number is not None and (stem.startswith("COCO_") or number[1] == stem)
    return str(int(number[1])) if is_coco and number else stem


_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
