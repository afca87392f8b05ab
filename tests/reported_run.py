"""A finished scripted run whose held-out images are described, for tests of what is shown of it."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from flows.forms import RunRequest
from tests.scripted_run import run_plainly, write_recipe

RUN = "mine"
HOSTILE = "Describe <img src=https://evil.example/x onerror=alert(1)><script>alert(2)</script>"

VOCABULARY = {
    "objects": {
        name: [name] for name in ("circle", "square", "triangle", "cross", "ring", "diamond")
    },
    "attributes": {"colour": {name: [name] for name in ("red", "green", "blue", "yellow")}},
}
SCENE = [{"name": "circle", "colour": "red"}, {"name": "ring", "colour": "blue"}]
"""Of every held-out image."""


def reported_home(folder: Path, **settings: Any) -> Path:
    """A home with the run `mine` of two iterations, one of whose prompts is hostile."""
    data = folder / "data"
    recipe = write_recipe(data)
    (data / "vocabulary.json").write_text(json.dumps(VOCABULARY))
    held_out = [json.loads(line) for line in (data / "heldout.jsonl").read_text().splitlines()]
    described = [record | {"objects": SCENE} for record in held_out]
    (data / "heldout.jsonl").write_text("\n".join(map(json.dumps, described)) + "\n")
    prompts = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    prompts[1]["input"] = HOSTILE
    (data / "train.jsonl").write_text("\n".join(map(json.dumps, prompts)) + "\n")
    for number, path in enumerate(sorted((data / "images").glob("*.png"))):
        shades = Image.linear_gradient("L").rotate(90 * number).resize((160, 120))
        shades.putpixel((0, 0), number)
        shades.convert("RGB").save(path)
    benchmark = {
        "name": "captions",
        "prompts": str(data / "heldout.jsonl"),
        "images": str(data / "images"),
        "vocabulary": str(data / "vocabulary.json"),
        "max_response_tokens": 40,
    }
    recipe = write_recipe_again(recipe, evaluation=[benchmark], **settings)
    run_plainly(RunRequest(recipe=str(recipe), home=str(folder / "home"), run_id=RUN))
    return folder / "home"


def write_recipe_again(path: Path, **settings: Any) -> Path:
    """The recipe file with other settings; the data beside it stay."""
    import yaml

    recipe = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(recipe | settings, sort_keys=False))
    return path
