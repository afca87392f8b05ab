"""A fixed list of images, so that figures of different runs and papers are of the same ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
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

    An image is named by its path or, where only one folder has it, by its file's name; with or
    without its ending, or as COCO does by the number at the name's end. DataError where a listed
    image has no item, or may be several.
    """
    if path is None:
        return list(items)
    listed = read_image_ids(path)
    kept = [(item, _canonical(image_of(item))) for item in items]
    by_name: dict[str, set[str]] = {}
    for _, image in kept:
        for name in (image, image.rpartition("/")[2]):
            by_name.setdefault(name, set()).add(image)
    named = {name: _meant(name, by_name.get(name, set()), path) for name in listed}
    missing = [name for name in listed if named[name] is None]
    if missing:
        raise DataError(
            f"{path} lists {len(missing)} of {len(listed)} images that are not there, "
            f"such as {shown(missing[0])}. Take the list that belongs to these files."
        )
    wanted = set(named.values())
    return [item for item, name in kept if name in wanted]


def _meant(listed: str, images: Collection[str], path: Path) -> str | None:
    """Of the images in any folder that have the listed name; None where there is none."""
    if listed in images or not images:
        return listed if images else None
    first, *others = sorted(images)
    if others:
        raise DataError(
            f"{path}: {shown(listed)} may be {shown(first)} or {shown(others[0])}. Write its "
            "folder too."
        )
    return first


def _canonical(name: str) -> str:
    """`COCO_val2014_000000000139.jpg`, `000000000139` and `139` are the same image."""
    folder, slash, file = name.strip().rpartition("/")
    stem = Path(file).stem if Path(file).suffix.lower() in _SUFFIXES else file
    number = _TRAILING_NUMBER.search(stem)
    if number is not None and (stem.startswith("COCO_") or number[1] == stem):
        stem = number[1].lstrip("0") or "0"
    return f"{folder}{slash}{stem}"


_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
