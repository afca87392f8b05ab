"""One prompt's journey with values small enough to check by eye."""

from pathlib import Path

from PIL import Image

from csr.images import image_ref
from csr.types import (
    FinishReason,
    ImageRef,
    PreferencePair,
    Prompt,
    ResponseTree,
    ScoredResponse,
    StepCandidate,
    StepNode,
    StepScore,
)

IMAGE = ImageRef(uri="/data/a.png", sha256="ab" * 32)


def saved_image(path: Path, colour: tuple[int, int, int] = (255, 0, 0)) -> ImageRef:
    """A real 6 x 4 image of one colour."""
    Image.new("RGB", (6, 4), colour).save(path)
    return image_ref(path)


def prompt(prompt_id: str = "42", image: ImageRef = IMAGE) -> Prompt:
    return Prompt(prompt_id=prompt_id, text="Describe the image.", image=image)


def node(node_id: str, parent_id: str | None = None, reward: float = 0.5) -> StepNode:
    return StepNode(
        node_id=node_id,
        parent_id=parent_id,
        depth=1 + node_id.count("."),
        step=StepCandidate(
            text=" A red circle.",
            token_ids=(14, 9, 31),
            token_logprobs=(-0.1, -0.7, -0.2),
            finish_reason=FinishReason.STEP,
        ),
        score=StepScore(reward=reward, breakdown={"likelihood": -0.4, "image_similarity": 27.5}),
        cumulative_reward=reward,
        kept=True,
    )


def tree(prompt_id: str = "42", image: ImageRef = IMAGE) -> ResponseTree:
    """Two first sentences; the first has a child."""
    nodes = (
        node(f"{prompt_id}/0"),
        node(f"{prompt_id}/1", reward=0.25),
        node(f"{prompt_id}/0.0", f"{prompt_id}/0"),
    )
    return ResponseTree(
        prompt=prompt(prompt_id, image), policy="tiny/00", origin="csr", nodes=nodes
    )


def response(prompt_id: str, child: int, text: str, reward: float) -> ScoredResponse:
    return ScoredResponse(
        response_id=f"{prompt_id}/{child}",
        prompt_id=prompt_id,
        text=text,
        token_ids=(14, 9, 31, 2),
        num_steps=1,
        num_tokens=4,
        sum_logprob=-1.25,
        reward=reward,
        breakdown={"likelihood": -0.4},
        finish_reason=FinishReason.EOS,
        origin="csr",
    )


def pair(prompt_id: str = "42", image: ImageRef = IMAGE) -> PreferencePair:
    return PreferencePair(
        pair_id=f"{prompt_id}#0",
        prompt=prompt(prompt_id, image),
        chosen=response(prompt_id, 0, "A red circle.", 2.0),
        rejected=response(prompt_id, 1, "A blue dog.", 0.5),
        margin=1.5,
        source="csr",
    )
