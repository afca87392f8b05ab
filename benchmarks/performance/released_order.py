"""The released algorithm's order of work: a prompt at a time, in it a node at a time.

For each node (arXiv:2405.14622, inference_csr/sample.py) the text so far is tokenised anew, the
image is opened, prepared and encoded anew, and transformers' `generate` is asked for the candidates
in one batch; nothing of one call is kept for the next. Its group beam search is gone from
transformers; plain sampling stands for it here, which is cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.shapes import TreeShape
from csr import rendering
from csr.images import load_image
from csr.types import Prompt


class ReleasedOrder:
    """Grows trees as the released sampler goes about it; which nodes it keeps does not matter."""

    def __init__(self, checkpoint: Path, tree: TreeShape) -> None:
        from transformers import AutoModelForImageTextToText, GenerationConfig

        model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="auto")
        model.generation_config = GenerationConfig()
        self._model, self._tree = model.eval(), tree
        self._processor = rendering.load_processor(str(checkpoint))
        self._media_ids = list(rendering.media_token_ids(self._processor))

    def num_tokens(self, prompts: Sequence[Prompt]) -> int:
        """Grow a tree for each prompt; how many tokens were sampled."""
        return sum(self._grown(prompt) for prompt in prompts)

    def _grown(self, prompt: Prompt) -> int:
        opened, num_tokens = [""], 0
        for _ in range(self._tree.max_steps):
            children = [child for text in opened for child in self._candidates(prompt, text)]
            num_tokens += sum(len(ids) for _, ids in children)
            opened = [text for text, _ in children[: self._tree.num_open]]
        return num_tokens

    def _candidates(self, prompt: Prompt, text: str) -> list[tuple[str, Any]]:
        """Whole responses so far, each with the token ids that are new."""
        import torch

        rendered = rendering.render_prompt(self._processor, prompt.text)
        inputs = self._processor(
            images=[load_image(prompt.image)], text=[rendered + text], return_tensors="pt"
        )
        with torch.inference_mode():
            answer = self._model.generate(
                **inputs,
                do_sample=True,
                top_p=0.95,
                num_return_sequences=self._tree.num_candidates,
                # As the other samplers do here: a step ends at its limit, an image mark is no text.
                min_new_tokens=self._tree.max_step_tokens,
                max_new_tokens=self._tree.max_step_tokens,
                suppress_tokens=self._media_ids,
                output_scores=True,
                return_dict_in_generate=True,
            )
        new = answer.sequences[:, inputs["input_ids"].shape[1] :]
        self._model.compute_transition_scores(
            answer.sequences, answer.scores, normalize_logits=True
        )
        texts = self._processor.batch_decode(new, skip_special_tokens=True)
        return [(text + more, ids) for more, ids in zip(texts, new, strict=True)]
