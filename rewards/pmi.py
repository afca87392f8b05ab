"""How much a step owes to the image: pointwise mutual information by the policy's own measure.

PMI(s) = mean over its tokens of log p(t | image, prompt, prefix) - log p(t | content-free, prefix),
in nats. A sentence that the language alone suggests has about 0, one that only the image explains
has more, and one that the image speaks against has less. The idea of scoring by the difference of
the two is that of arXiv:2403.05262 (visual debias decoding), used here on what was said.

No second model: the first term came with the sampled tokens, the second is one pass more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from csr.label_calibration import ContentFree, content_free_prompts
from csr.protocols import Sampler
from rewards.raw import Step


def pmi(steps: Sequence[Step], sampler: Sampler, content_free: ContentFree = "none") -> list[float]:
    """PMI of each step with its prompt's image, in nats a token.

    One `score` call in all for each content-free input; of `both` the mean. `sampler` speaks for
    the policy that sampled the steps.
    """
    prefixes = [step.prefix_token_ids for step in steps]
    spoken = [
        (*prefix, *step.candidate.token_ids) for prefix, step in zip(prefixes, steps, strict=True)
    ]
    views = [content_free_prompts(step.group.prompt, content_free) for step in steps]
    found = []
    for view in zip(*views, strict=True):
        prompts, [with_image] = [prompt for prompt, _ in view], {seen for _, seen in view}
        blind = sampler.score(prompts, spoken, with_image=with_image)
        found.append(
            [
                _mean_difference(step.candidate.token_logprobs, values[len(prefix) :])
                for step, prefix, values in zip(steps, prefixes, blind, strict=True)
            ]
        )
    return [math.fsum(values) / len(values) for values in zip(*found, strict=True)]


def _mean_difference(seeing: Sequence[float], blind: Sequence[float]) -> float:
    assert len(seeing) == len(blind) > 0, "one value a token, and at least one token"
    return math.fsum(a - b for a, b in zip(seeing, blind, strict=True)) / len(seeing)
