"""A COCO of three images in the official files, small enough to count by hand."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

CATEGORIES = {1: "person", 18: "dog", 62: "chair", 58: "hot dog"}

IMAGES: dict[int, tuple[list[int], list[str]]] = {
    42: ([18, 18, 62], ["A dog sits by a seat.", "Two dogs."]),
    139: ([62], ["A man in a chair.", "Somebody sits."]),
    9: ([1, 58], ["A woman eats a hot dog.", "Lunch"]),
}
"""Image id -> class ids of its instances, and its captions.

Present: 42 dog, chair; 139 chair, person (a caption's); 9 person, hot dog.
"""

CAPTIONS = {
    42: "A dog and a cat on a couch. A dog barks.",
    139: "A man sits on a chair beside a dog. The dog sleeps.",
    9: "A woman eats.",
}
"""What a policy says. Mentions, and hallucinated ones (*):
42 dog cat* couch* dog; 139 person chair dog* dog*; 9 person."""


def file_name(image_id: int, split: str) -> str:
    return f"COCO_{split}2014_{image_id:012d}.jpg"


def write_coco(
    folder: Path, ids: tuple[int, ...] = (42, 139, 9), split: str = "val", **changes: Any
) -> Path:
    """`annotations` with both files of a split, and the images beside it in `images`."""
    annotations, images = folder / "annotations", folder / "images"
    annotations.mkdir(exist_ok=True)
    images.mkdir(exist_ok=True)
    listed = [
        {"id": n, "file_name": file_name(n, split), "license": 1, "width": 8, "height": 6}
        for n in ids
    ]
    for n, each in zip(ids, listed, strict=True):
        Image.new("RGB", (8, 6), (n, 0, 0)).save(images / each["file_name"])
    instances = {
        "info": {"year": 2014},
        "images": listed,
        "categories": [
            {"id": n, "name": name, "supercategory": "x"} for n, name in CATEGORIES.items()
        ],
        "annotations": [
            {"id": 1000 * n + k, "image_id": n, "category_id": c, "segmentation": [[1.5, 2.0]]}
            for n in ids
            for k, c in enumerate(IMAGES[n][0])
        ],
    }
    captions = {
        "images": listed,
        "annotations": [
            {"id": 1000 * n + k, "image_id": n, "caption": text}
            for n in ids
            for k, text in enumerate(IMAGES[n][1])
        ],
    }
    (annotations / f"instances_{split}2014.json").write_text(json.dumps(instances | changes))
    (annotations / f"captions_{split}2014.json").write_text(json.dumps(captions))
    return annotations
