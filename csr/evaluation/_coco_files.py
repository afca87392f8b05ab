"""COCO's annotation files: what stands in each image, and what people wrote about it."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csr.errors import DataError, shown

MAX_FILE_BYTES = 1024**3
"""Bytes of one file; instances_train2014.json, the largest, has 0.45 GB."""

_WANTED = frozenset({
    "images", "annotations", "categories", "id", "image_id", "category_id", "name", "file_name",
    "caption",
})  # fmt: skip
"""Outlines and licences are dropped as they are read: they take most of the memory."""


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One image with what its annotations say."""

    image_id: int
    file_name: str
    objects: set[str] = field(default_factory=set)
    """Names of the classes of which an instance is annotated."""
    captions: list[str] = field(default_factory=list)
    """What people wrote, five texts as a rule."""


def read_coco(
    annotations: Path, year: int, image_ids: Collection[int] | None
) -> dict[int, CocoImage]:
    """Image id -> the image, from `instances_*.json` and `captions_*.json` of val and, where a
    listed image is not among them, of train. `image_ids` of None takes all of val.

    An image's annotations stand in one of the two sets alone, so this reads what CHAIR's code reads
    from both. DataError where a file is missing or is not COCO's, or a listed image is in neither.
    """
    images: dict[int, CocoImage] = {}
    for split in ("val", "train"):
        wanted = None if image_ids is None else set(image_ids) - images.keys()
        if split == "val" or wanted:
            images |= _read_split(annotations, f"{split}{year}", wanted)
    missing = sorted(set(image_ids or ()) - images.keys())
    if missing:
        raise DataError(
            f"{annotations} annotates {len(missing)} of {len(image_ids or ())} listed images in "
            f"neither val{year} nor train{year}, such as {missing[0]}. Take the list that belongs "
            "to these files."
        )
    return images


def _read_split(
    annotations: Path, split: str, wanted: Collection[int] | None
) -> dict[int, CocoImage]:
    instances = annotations / f"instances_{split}.json"
    document = _read(instances, ("images", "annotations", "categories"))
    names = {each["id"]: each["name"] for each in document["categories"]}
    images = {
        each["id"]: CocoImage(each["id"], each["file_name"])
        for each in document["images"]
        if wanted is None or each["id"] in wanted
    }
    for each in document["annotations"]:
        if each["image_id"] in images:
            if each["category_id"] not in names:
                raise DataError(
                    f"{instances}: the class {shown(each['category_id'])} is not among its "
                    "categories. Fetch the file again."
                )
            images[each["image_id"]].objects.add(names[each["category_id"]])
    if not images:
        return images
    captions = annotations / f"captions_{split}.json"
    for each in _read(captions, ("annotations",))["annotations"]:
        if each["image_id"] in images:
            images[each["image_id"]].captions.append(each["caption"])
    silent = [image for image in images.values() if not image.captions]
    if silent:
        raise DataError(
            f"{captions} has no caption of {len(silent)} of {len(images)} images, such as "
            f"{silent[0].image_id}, and CHAIR counts what captions name as present. Take both "
            "files of one release."
        )
    return images


_FIELDS: dict[str, dict[str, type]] = {
    "images": {"id": int, "file_name": str},
    "categories": {"id": int, "name": str},
}
_ANNOTATION_FIELDS: dict[str, dict[str, type]] = {
    "instances": {"image_id": int, "category_id": int},
    "captions": {"image_id": int, "caption": str},
}


def _read(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """The lists under `keys`, each of whose objects has the fields that are read."""
    if not path.is_file():
        raise DataError(
            f"{path} does not exist. `annotations` names the folder with COCO's "
            "instances_val2014.json and captions_val2014.json, as they come in "
            "annotations_trainval2014.zip."
        )
    if path.stat().st_size > MAX_FILE_BYTES:
        raise DataError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes, as no file of COCO is.")
    try:
        with path.open(encoding="utf-8") as file:
            document = json.load(file, object_hook=_reduced)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}). Fetch it again.") from error
    kind = path.name.split("_")[0]
    for key in keys:
        fields = _ANNOTATION_FIELDS[kind] if key == "annotations" else _FIELDS[key]
        listed = document.get(key) if isinstance(document, dict) else None
        if not isinstance(listed, list) or not all(_has(each, fields) for each in listed):
            raise DataError(
                f"{path} is not COCO's: {key!r} must list objects with {', '.join(fields)}. Fetch "
                "it again."
            )
    return dict(document)


def _reduced(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key in _WANTED}


def _has(each: Any, fields: dict[str, type]) -> bool:
    return isinstance(each, dict) and all(type(each.get(k)) is kind for k, kind in fields.items())
