"""Visual debias decoding against forward passes without any cache, on tiny checkpoints."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from csr import rendering
from csr.checkpoints import base_policy
from csr.images import image_ref, load_image
from csr.protocols import GenerateSettings, StepSettings
from csr.samplers import transformers
from csr.samplers._contrast import Contrast
from csr.samplers._loading import load_complete
from csr.types import Prompt, StepRequest
from tests.logprobs import NATS
from tests.tiny_models import make_llava, make_qwen2_5_vl, make_smolvlm

pytestmark = pytest.mark.slow

WHOLE = GenerateSettings(temperature=0.0, top_p=1.0, max_response_tokens=24)
SAMPLED = StepSettings(
    num_candidates=3, temperature=1.0, top_p=0.9, max_step_tokens=24, max_response_tokens=40
)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    """Of several lengths, so that every row of a batch is padded by another number."""
    root = tmp_path_factory.mktemp("images")
    asked = []
    for i, size in enumerate([(40, 36), (64, 96), (40, 36)]):
        noise = np.random.default_rng(i).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{i}.png")
        text = ("Describe the image.", "What is in the picture? " * 3, "What?")[i]
        ref = image_ref(f"{i}.png", root=root)
        asked.append(Prompt(prompt_id=str(i), text=text, image=ref))
    return asked


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llava(tmp_path_factory.mktemp("models") / "llava")


def sampler(directory: Path, **settings: Any) -> transformers.TransformersSampler:
    built = transformers.TransformersSampler(transformers.Config.model_validate(settings))
    built.load_policy(base_policy(str(directory)))
    return built


def requests(prompts: Sequence[Prompt]) -> list[StepRequest]:
    return [StepRequest(prompt=prompt, seed=3 + i) for i, prompt in enumerate(prompts)]


class WithoutCache:
    """Next-token logits of one prompt's views, each from the whole text anew."""

    def __init__(self, directory: Path) -> None:
        self.processor = rendering.load_processor(str(directory))
        self.model = load_complete(str(directory)).eval()
        self.banned = list(rendering.media_token_ids(self.processor))

    def logits(self, prompt: Prompt, said: Sequence[int], view: str) -> torch.Tensor:
        image = prompt.image if view == "seeing" else replace(prompt.image, corruption="blank")
        images = [None if view == "none" else load_image(image)]
        inputs = rendering.expanded_inputs(self.processor, [prompt.text], images)
        batch = {}
        for name, part in inputs.items():
            tail = list(said) if name == "input_ids" else [0] * len(said)
            batch[name] = torch.tensor([part[0] + tail]) if isinstance(part, list) else part
        with torch.inference_mode():
            return self.model(**batch, use_cache=False).logits[0, -1]

    def choice(
        self, prompt: Prompt, said: Sequence[int], contrast: Contrast
    ) -> tuple[int, float, float]:
        """The greedy token, the raw policy's log-probability of it, and how clear the choice is."""
        seeing = self.logits(prompt, said, "seeing")
        kinds = ("none", "blank") if contrast.content_free == "both" else (contrast.content_free,)
        free = torch.stack([self.logits(prompt, said, kind) for kind in kinds]).mean(0)
        scores = (1 + contrast.alpha) * seeing - contrast.alpha * free
        masked = seeing.clone()
        masked[self.banned] = float("-inf")
        cut = masked < masked.max() + torch.log(torch.tensor(contrast.beta))
        scores[cut] = scores[self.banned] = float("-inf")
        (first, second), (token, _) = scores.topk(2)
        return int(token), seeing.log_softmax(-1)[token].item(), (first - second).item()


@pytest.mark.parametrize(
    ("make", "kind"),
    [(make_llava, "both"), (make_qwen2_5_vl, "both"), (make_smolvlm, "none")],
)
def test_each_view_has_its_own_cache_and_positions(
    make: Callable[[Path], Path], kind: str, tmp_path: Path, prompts: list[Prompt]
) -> None:
    directory = make(tmp_path / "model")
    contrast = Contrast(content_free=kind, alpha=1.0, beta=0.02)
    found = sampler(directory, contrast=contrast.model_dump()).generate(requests(prompts), WHOLE)
    plain = sampler(directory).generate(requests(prompts), WHOLE)
    assert [r.token_ids for r in found] != [r.token_ids for r in plain]
    reference = WithoutCache(directory)
    compared = 0
    for prompt, response in zip(prompts, found, strict=True):
        for place, (token, value) in enumerate(
            zip(response.token_ids, response.token_logprobs, strict=True)
        ):
            expected, raw, lead = reference.choice(prompt, response.token_ids[:place], contrast)
            if lead < NATS:
                continue  # rounding may decide
            assert token == expected
            assert value == pytest.approx(raw, abs=NATS)
            compared += 1
    assert compared > 20


def test_alpha_zero_without_a_cut_is_plain_decoding(llava: Path, prompts: list[Prompt]) -> None:
    plain = sampler(llava)
    same = sampler(llava, contrast={"alpha": 0.0, "beta": 1e-30})
    for settings in (WHOLE, replace(WHOLE, temperature=1.0, top_p=0.9)):
        one, two = (s.generate(requests(prompts), settings) for s in (plain, same))
        assert [r.token_ids for r in one] == [r.token_ids for r in two]
    one, two = (s.sample_steps(requests(prompts), SAMPLED) for s in (plain, same))
    assert [[c.text for c in g] for g in one] == [[c.text for c in g] for g in two]


@pytest.mark.parametrize("kind", ["none", "both"])
def test_neither_padding_nor_batch_size_change_the_result(
    kind: str, llava: Path, prompts: list[Prompt]
) -> None:
    contrast = {"content_free": kind, "alpha": 1.0, "beta": 0.05}
    wide = sampler(llava, contrast=contrast, batch_size=16)
    narrow = sampler(llava, contrast=contrast, batch_size=1)
    asked = requests(prompts)
    together = wide.sample_steps(asked, SAMPLED)
    assert [[c.token_ids for c in g] for g in together] == [
        [c.token_ids for c in g] for g in narrow.sample_steps(asked, SAMPLED)
    ]
    assert wide.sample_steps(asked[::-1], SAMPLED)[0][0].token_ids == together[-1][0].token_ids
    followed = [replace(r, prefix=(g[0],)) for r, g in zip(asked, together, strict=True)]
    going_on = [r for r in followed if r.prefix[0].finish_reason == "step"]
    assert going_on
    one, two = (s.sample_steps(going_on, SAMPLED) for s in (wide, narrow))
    assert [[c.token_ids for c in g] for g in one] == [[c.token_ids for c in g] for g in two]


def test_stored_logprobs_are_the_policys_own(llava: Path, prompts: list[Prompt]) -> None:
    contrasting = sampler(llava, contrast={"alpha": 2.0, "beta": 0.05})
    groups = contrasting.sample_steps(requests(prompts), SAMPLED)
    rows = [(p, c) for p, group in zip(prompts, groups, strict=True) for c in group]
    scores = sampler(llava).score([p for p, _ in rows], [c.token_ids for _, c in rows])
    for (_, candidate), values in zip(rows, scores, strict=True):
        assert candidate.token_logprobs == pytest.approx(values, abs=NATS)
