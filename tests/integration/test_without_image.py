"""A prompt without its image is one prompt for vLLM and transformers, and not the one with it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from csr import rendering
from csr.checkpoints import base_policy
from csr.images import image_ref
from csr.protocols import StepSettings
from csr.samplers import transformers, vllm
from csr.samplers._loading import load_complete
from csr.types import Prompt, StepRequest
from tests.logprobs import NATS, largest_difference
from tests.tiny_models import make_llava, make_qwen2_5_vl

pytestmark = pytest.mark.slow

SAMPLED = StepSettings(
    num_candidates=2, temperature=1.0, top_p=1.0, max_step_tokens=30, max_response_tokens=60
)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    root = tmp_path_factory.mktemp("images")
    refs = []
    for i, size in enumerate([(40, 36), (64, 96), (40, 36)]):
        noise = np.random.default_rng(i).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{i}.png")
        refs.append(image_ref(f"{i}.png", root=root))
    texts = ("Describe the image.", "What is in the picture? " * 3, "Describe the image.")
    return [
        Prompt(prompt_id=str(i), text=text, image=ref)
        for i, (text, ref) in enumerate(zip(texts, refs, strict=True))
    ]


@pytest.fixture(scope="module")
def samplers() -> Iterator[dict[str, Any]]:
    built = {
        "vllm": vllm.build(vllm.Config(kv_cache_gib=0.25)),
        "transformers": transformers.build(transformers.Config(batch_size=4)),
    }
    yield built
    for sampler in built.values():
        sampler.close()


def language_model_scores(
    directory: Path, prompts: Sequence[Prompt], responses: Sequence[Sequence[int]]
) -> list[list[float]]:
    """The language model's own values of the rendered text, one sequence at a time."""
    processor = rendering.load_processor(str(directory))
    model = load_complete(str(directory)).eval()
    scores = []
    for prompt, response in zip(prompts, responses, strict=True):
        rendered = processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "text", "text": prompt.text}]}],
            add_generation_prompt=True,
            tokenize=False,
        )
        ids = [*processor.tokenizer(rendered)["input_ids"], *response]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        start = len(ids) - len(response)
        scores.append([logits[start + i - 1, t].item() for i, t in enumerate(response)])
    return scores


@pytest.mark.parametrize("make", [make_llava, make_qwen2_5_vl])
def test_both_score_as_the_language_model_alone(
    make: Callable[[Path], Path], tmp_path: Path, prompts: list[Prompt], samplers: dict[str, Any]
) -> None:
    directory = make(tmp_path / "model")
    policy = replace(base_policy(str(directory)), name=str(tmp_path))
    for sampler in samplers.values():
        sampler.load_policy(policy)
    requests = [StepRequest(prompt=prompt, seed=i) for i, prompt in enumerate(prompts)]
    groups = samplers["vllm"].sample_steps(requests, SAMPLED)
    asked = [p for p, group in zip(prompts, groups, strict=True) for _ in group]
    token_ids = [c.token_ids for group in groups for c in group]
    expected = language_model_scores(directory, asked, token_ids)
    for sampler in samplers.values():
        blind = sampler.score(asked, token_ids, with_image=False)
        assert largest_difference(blind, expected) < NATS
        seeing = sampler.score(asked, token_ids)
        assert largest_difference(blind, seeing) > 100 * NATS
        other = [replace(p, image=prompts[1].image) for p in asked]
        assert sampler.score(other, token_ids, with_image=False) == blind


def test_a_beginning_is_what_stands_behind_the_prompt(
    tmp_path: Path, prompts: list[Prompt], samplers: dict[str, Any]
) -> None:
    policy = base_policy(str(make_llava(tmp_path / "model")))
    for sampler in samplers.values():
        sampler.load_policy(policy)
        spaced, bare = (sampler.encode_beginning(prompts[0], t) for t in (" Yes", "Yes"))
        assert spaced
        assert bare
        assert spaced != bare
        assert [sampler.decode(ids) for ids in (spaced, bare)] == [" Yes", "Yes"]
