"""Under which conditions a benchmark's figures hold: they are comparable under the same ones alone.

CHAIR rises with the length that is allowed, and changes with the prompt and the images; so every
figure is kept with these.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence

from csr.protocols import Benchmark, Json
from csr.types import Prompt
from flows.choices import BenchmarkChoice
from flows.inputs import component_inputs, prompt_inputs
from storage.atomic import read_json
from storage.attempt import AttemptDir

MAX_LISTED_PROMPTS = 3
COMPARED = ("prompts_sha256", "max_response_tokens", "describe_first", "settings")
"""What makes figures incomparable where it differs."""


def conditions_of(choice: BenchmarkChoice, benchmark: Benchmark, prompts: Sequence[Prompt]) -> Json:
    """What was asked, of which images, and how answers were cut and read.

    `settings` are the benchmark's, with each file as the digest of its content: an image list or a
    synonym table counts by what it says.
    """
    wordings = Counter(prompt.text for prompt in prompts)
    images = sorted({prompt.image.sha256 for prompt in prompts})
    return {
        "prompt": next(iter(wordings)) if len(wordings) == 1 else None,
        "num_wordings": len(wordings),
        "wordings": [text for text, _ in wordings.most_common(MAX_LISTED_PROMPTS)],
        "num_prompts": len(prompts),
        "num_images": len(images),
        "prompts_sha256": _digest(prompt_inputs(prompts)),
        "images_sha256": _digest(images),
        "max_response_tokens": benchmark.max_response_tokens,
        "decoding": "greedy",
        "describe_first": benchmark.describe_first,
        "settings": component_inputs(choice),
    }


def read_conditions(attempt: AttemptDir) -> Json:
    """Benchmark -> its conditions; nothing where the attempt was not evaluated."""
    return read_json(attempt.conditions) if attempt.conditions.exists() else {}


def different_conditions(one: Json, other: Json) -> list[str]:
    """Which of two benchmarks' conditions differ, so that their figures are not comparable."""
    return [name for name in COMPARED if one.get(name) != other.get(name)]


def condition_line(conditions: Json) -> str:
    """For people, e.g. '"Describe the image.", 500 images, at most 512 tokens, greedy'."""
    asked = conditions["prompt"]
    prompt = f'"{asked}"' if asked is not None else f"{conditions['num_prompts']} prompts"
    parts = [
        prompt,
        f"{conditions['num_images']} images",
        f"at most {conditions['max_response_tokens']} tokens",
        conditions["decoding"],
    ]
    if conditions["describe_first"]:
        parts.append("a description first")
    return ", ".join(parts)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
