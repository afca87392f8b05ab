"""Real photographs, as a user would have them: from the wheels of scikit-image and scikit-learn.

Large, of different sizes, some grey, one with transparency. Nothing is downloaded: where a
release of either package no longer ships a file, `copy_photographs` fails by its name.
"""

import json
import shutil
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}
TRAIN = {
    "people/astronaut.png": "skimage",  # 512 x 512
    "people/camera.png": "skimage",  # 512 x 512, grey
    "animals/chelsea.png": "skimage",  # 451 x 300
    "animals/horse.png": "skimage",  # 400 x 328, transparent
    "things/deep/coffee.png": "skimage",  # 600 x 400
    "things/rocket.jpg": "skimage",  # 640 x 427
    "places/china.jpg": "sklearn",  # 640 x 427
    "retina.jpg": "skimage",  # 1411 x 1411
}
"""Path below the image folder -> package."""
HELD_OUT = {
    "heldout/flower.jpg": "sklearn",  # 640 x 427
    "heldout/motorcycle_left.png": "skimage",  # 741 x 500
    "heldout/page.png": "skimage",  # 384 x 191, grey
}
INPUT = "Describe the image."


def copy_photographs(folder: Path) -> Path:
    """All photographs below `folder`, each under its path."""
    for name, package in (TRAIN | HELD_OUT).items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(packaged(package, target.name), target)
    return folder


def packaged(package: str, file_name: str) -> Path:
    """Where an installed package keeps one of its photographs."""
    spec = find_spec(package)
    assert spec is not None, f"{package} is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent / FOLDERS[package] / file_name


def write_jsonl(path: Path, images: Iterable[str]) -> Path:
    """One record a line, the ids as whole numbers."""
    records = [{"id": n, "image": image, "input": INPUT} for n, image in enumerate(images)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_csr_json(path: Path, images: Iterable[str]) -> Path:
    """A list as CSR published its prompts; every second record lacks the image marker."""
    inputs = (f"<image>\n{INPUT}", INPUT)
    records = [
        {"id": f"coco_{n}", "image": image, "input": inputs[n % 2]}
        for n, image in enumerate(images)
    ]
    path.write_text(json.dumps(records, indent=1))
    return path
