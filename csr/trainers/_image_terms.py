"""Loss terms that ask what the image adds: POVID's image distortion, and mDPO's two terms.

| term | source | compares |
|---|---|---|
| distortion | POVID, arXiv:2402.11411 | what is said, and what a noisy image makes likeliest |
| conditional | mDPO, arXiv:2406.11839 | the chosen response on the image and on a corrupted one |
| anchor | mDPO | the chosen response by the policy and by the reference |

The functions take log-probabilities in nats as torch tensors with one value a pair, and give the
loss of each pair. A log-ratio is log policy - log reference of one response under one image.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from csr.config import ComponentConfig
from csr.corruptions import check_corruption

_DISTORTION_WEIGHT = 0.5

CORRUPTED_LOGPROB = "corrupted_logprob"
FLIP_MARGIN = "flip_margin"


class ImageTerms(ComponentConfig):
    """Which terms are added to the loss, how strongly, and what is done to the image for them."""

    corruption: str | None = None
    """A name of `csr.corruptions`, such as "diffusion_noise:500" (POVID) or "crop:0.2" (mDPO's
    paper; its code masks the image's tokens). The same image always becomes the same pixels, so
    noise is drawn once for all pairs of an image and all epochs."""
    distortion: Literal["released", "paper"] | None = None
    """POVID's term as its code has it, or as its paper does (see `docs/povid.md`)."""
    distortion_weight: float = Field(default=_DISTORTION_WEIGHT, gt=0)
    """released: the term's share of the loss, the rest is `loss_type`'s (POVID's code: 0.5).
    paper: b2 / beta, where a = b1 = beta. The paper gives no values."""
    conditional_weight: float = Field(default=0.0, ge=0)
    """Of mDPO's image-conditional term, which is added to the loss (mDPO: 1)."""
    anchor_weight: float = Field(default=0.0, ge=0)
    """Of mDPO's anchor, which is added to the loss (mDPO: 1). It sees no corrupted image."""
    anchor_delta: float = 0.0
    """The reward in nats that the anchor wants of the chosen response to exceed (mDPO: 0)."""

    @property
    def need_corruption(self) -> bool:
        """Whether any term looks at a corrupted image."""
        return self.distortion is not None or self.conditional_weight > 0

    @property
    def reference_columns(self) -> tuple[str, ...]:
        """What the reference policy's pass finds for each pair, beside the two responses."""
        names = (CORRUPTED_LOGPROB,) if self.conditional_weight > 0 else ()
        return (*names, FLIP_MARGIN) if self.distortion == "released" else names

    @field_validator("corruption")
    @classmethod
    def _a_corruption(cls, name: str | None) -> str | None:
        if name is not None:
            check_corruption(name)
        return name

    @model_validator(mode="after")
    def _every_setting_does_something(self) -> Self:
        if not (self.need_corruption or self.anchor_weight > 0):
            raise ValueError(
                "no term is on. Set distortion, conditional_weight or anchor_weight, or leave "
                "image_terms out."
            )
        if self.need_corruption and self.corruption is None:
            raise ValueError(
                "distortion and conditional_weight need a corruption, such as "
                "'diffusion_noise:500' or 'crop:0.2'."
            )
        unused = {
            "corruption": self.corruption is not None and not self.need_corruption,
            "distortion_weight": self.distortion is None
            and self.distortion_weight != _DISTORTION_WEIGHT,
            "anchor_delta": self.anchor_delta != 0 and self.anchor_weight == 0,
        }
        for name in (name for name, is_unused in unused.items() if is_unused):
            raise ValueError(f"{name} is set, but the term that it is for is off. Remove it.")
        if self.distortion == "released" and self.distortion_weight > 1:
            raise ValueError(
                f"distortion_weight is {self.distortion_weight:g}. In the released form it is a "
                "share of the loss: give at most 1."
            )
        return self


def released_distortion_loss(margin: Any, reference_margin: Any, beta: float) -> Any:
    """-log sigma(beta (margin - reference_margin)): DPO, rejecting what the noisy image flips.

    A margin is the sum over the chosen response's tokens of log-probability of the token less that
    of the one that is likeliest under the noisy image, both under the CLEAN image and the chosen
    response's own prefix. So only tokens that the noise flips count. Policy and reference each
    have their own likeliest tokens.
    """
    return _preferred(beta * (margin - reference_margin))


def paper_distortion_loss(
    chosen: Any, rejected: Any, noisy: Any, *, beta: float, weight: float
) -> Any:
    """-log sigma(beta (chosen - rejected - weight noisy)), of log-ratios: POVID's equation 4.

    `noisy` is the log-ratio of the noisy image's likeliest tokens, under the noisy image.
    """
    return _preferred(beta * (chosen - rejected - weight * noisy))


def conditional_loss(clean: Any, corrupted: Any, beta: float) -> Any:
    """-log sigma(beta (clean - corrupted)), of the chosen response's log-ratios."""
    return _preferred(beta * (clean - corrupted))


def anchor_loss(chosen: Any, beta: float, delta: float) -> Any:
    """-log sigma(beta chosen - delta), of the chosen response's log-ratio on the clean image."""
    return _preferred(beta * chosen - delta)


def _preferred(reward: Any) -> Any:
    from torch.nn.functional import logsigmoid

    return -logsigmoid(reward)
