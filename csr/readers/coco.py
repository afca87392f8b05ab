"""COCO's own layout: `annotations/captions_<split>.json` beside a folder `<split>` of images.

Each image is a record, its number COCO's; `data.instruction` is asked of all. The first caption of
an image, by its number, is its reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from csr.errors import ConfigError, DataError
from csr.prompt_files import PromptFiles, RawRecords
from csr.records import BadRecordError, Entry, parse_json, read_text

SETTINGS = frozenset({"images", "instruction"})
_ANNOTATIONS = "annotations"
_NAME = re.compile(r"captions_(?P<split>[\w-]+)\.json")


def recognises(prompts: str) -> bool:
    """A folder with captions below `annotations`, or such a captions file itself."""
    path = Path(prompts)
    return bool(_captions_files(path)) or _is_captions_file(path)


def build(files: PromptFiles) -> RawRecords:
    """An entry for each image. DataError where the file is not in COCO's form."""
    if files.instruction is None:
        raise ConfigError(
            f"{files.prompts} is in COCO's layout, which asks nothing. Say in data.instruction "
            'what is asked of every image, such as "Describe the image."'
        )
    path = _one_file(Path(files.prompts))
    value = parse_json(read_text(path), str(path))
    images, captions = _list(value, "images", path), _list(value, "annotations", path)
    root = Path(files.images) if files.images is not None else path.parent.parent
    folder = _image_folder(root, path)
    entries = list(_entries(images, _first_captions(captions), folder, files.instruction, path))
    if not entries:
        raise DataError(f"{path} names no images. It needs at least one.")
    return RawRecords(place=str(path), entries=entries, image_root=root)


def _entries(
    images: list[Any], captions: dict[Any, Any], folder: str, instruction: str, path: Path
) -> Iterator[Entry]:
    for number, image in enumerate(images, start=1):
        where = f"{path}, image {number}"
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            fault = BadRecordError(
                f"{where}: an image must be an object with a text `file_name`. Mend the record."
            )
            yield Entry(number, where, image, fault)
            continue
        value = {
            "id": image.get("id"),
            "image": f"{folder}{image['file_name']}",
            "input": instruction,
        }
        if isinstance(image.get("id"), int):
            value["reference"] = captions.get(image["id"])
        yield Entry(number, where, value)


def _first_captions(captions: list[Any]) -> dict[Any, Any]:
    """Image -> the caption with the lowest number; what is in no order has COCO's own."""
    known = [
        each
        for each in captions
        if isinstance(each, dict)
        and isinstance(each.get("image_id"), int)
        and isinstance(each.get("id"), int)
    ]
    known.sort(key=lambda caption: caption["id"], reverse=True)
    return {caption["image_id"]: caption.get("caption") for caption in known}


def _one_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = _captions_files(path)
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(
            f"{path} has no {_ANNOTATIONS}/captions_*.json. Name the folder above it, or the file."
        )
    raise DataError(
        f"{path} has captions of several splits ({', '.join(file.name for file in found)}). Name "
        f"one of them, such as {found[0]}: what is trained on must not be held out elsewhere."
    )


def _captions_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(f for f in (folder / _ANNOTATIONS).glob("captions_*.json") if f.is_file())


def _is_captions_file(path: Path) -> bool:
    return bool(_NAME.fullmatch(path.name)) and path.parent.name == _ANNOTATIONS and path.is_file()


def _image_folder(root: Path, path: Path) -> str:
    """The split's folder below the image folder, with a slash; nothing where it has none."""
    named = _NAME.fullmatch(path.name)
    if named is None:
        return ""
    options = (f"{named['split']}/", f"images/{named['split']}/")
    return next((folder for folder in options if (root / folder).is_dir()), "")


def _list(value: Any, key: str, path: Path) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise DataError(
            f"{path} has no list {key!r}, as COCO's captions have. Name a captions file, or say in "
            "data.format what it is."
        )
    return found
