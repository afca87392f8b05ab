"""POPE's three official files, four questions each."""

import json
from pathlib import Path

from PIL import Image

from csr.evaluation._pope_files import SPLITS

# Two images, four questions a split.
QUESTIONS = [
    ("COCO_val2014_000000000042.jpg", "Is there a dog in the image?", "yes"),
    ("COCO_val2014_000000000042.jpg", "Is there a cat in the image?", "no"),
    ("COCO_val2014_000000000139.jpg", "Is there a chair in the image?", "yes"),
    ("COCO_val2014_000000000139.jpg", "Is there an oven in the imange?", "no"),
]


def write_pope(folder: Path, splits: tuple[str, ...] = SPLITS) -> Path:
    folder.mkdir(exist_ok=True)
    for split in splits:
        lines = [
            {"question_id": n, "image": image, "text": text, "label": label}
            for n, (image, text, label) in enumerate(QUESTIONS, 1)
        ]
        path = folder / f"coco_pope_{split}.json"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for image, *_ in QUESTIONS:
        Image.new("RGB", (4, 4), "red").save(folder / image)
    return folder
