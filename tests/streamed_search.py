"""A small search and prompts with images of noise, for samplers that stream."""

from pathlib import Path

import numpy as np
from PIL import Image

from csr.growth import SearchSettings
from csr.images import image_ref
from csr.protocols import StepSettings
from csr.types import Prompt

STEPS = StepSettings(
    num_candidates=3, temperature=1.0, top_p=0.95, max_step_tokens=12, max_response_tokens=40
)
SETTINGS = SearchSettings(
    steps=STEPS, keep_top=1, keep_bottom=1, prune_by="likelihood", path_score="sum", max_steps=4,
    duplicate_retries=1,
)  # fmt: skip


def noise_prompts(
    folder: Path, num_prompts: int, texts: tuple[str, ...] = ("Describe the image.",)
) -> list[Prompt]:
    """Each with an image of its own in `folder`; the texts take turns."""
    found = []
    for number in range(num_prompts):
        noise = np.random.default_rng(number).integers(0, 256, (36, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        image = image_ref(folder / f"{number}.png")
        text = texts[number % len(texts)]
        found.append(Prompt(prompt_id=f"p{number}", text=text, image=image))
    return found
