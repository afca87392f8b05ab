"""The world's configuration, and the name that follows from it."""

from __future__ import annotations

import hashlib
import json

from pydantic import PositiveInt

from csr.config import ComponentConfig
from csr.world.captions import CaptionSettings
from csr.world.clip import ClipSettings
from csr.world.questions import QuestionSettings
from csr.world.scenes import SceneSettings
from csr.world.vlm import PolicySettings

WORLD_VERSION = 4
"""Raise it whenever the code builds another world from the same configuration."""


class Config(ComponentConfig):
    """Everything that decides what the world contains."""

    seed: int = 0
    """Of the policy: its data, initialisation and batches. The dataset does not depend on it."""
    num_train: PositiveInt = 2048
    """Scenes to ask about without knowing the answer: what CSR trains on."""
    num_validation: PositiveInt = 200
    """Scenes with ground truth to choose settings on; the models are measured on them."""
    num_heldout: PositiveInt = 400
    """Scenes with ground truth to report on."""
    num_pope_scenes: PositiveInt = 150
    """Of the held-out scenes, those that POPE asks about: two questions each in each split."""
    scenes: SceneSettings = SceneSettings()
    captions: CaptionSettings = CaptionSettings()
    questions: QuestionSettings = QuestionSettings()
    policy: PolicySettings = PolicySettings()
    clip: ClipSettings = ClipSettings()

    @classmethod
    def micro(cls, seed: int = 0) -> Config:
        """A world of the same form that builds in seconds and whose models know nothing."""
        return cls(
            seed=seed,
            num_train=24,
            num_validation=8,
            num_heldout=12,
            num_pope_scenes=6,
            policy=PolicySettings(
                vision_width=32,
                vision_layers=1,
                width=32,
                layers=1,
                num_scenes=32,
                vision_steps=2,
                alignment_steps=8,
                instruction_steps=2,
                batch_size=8,
            ),
            clip=ClipSettings(
                width=32,
                layers=1,
                text_width=32,
                embedding_width=32,
                num_scenes=32,
                warmup_steps=2,
                contrastive_steps=2,
                batch_size=8,
            ),
        )


def world_name(config: Config) -> str:
    """The world's directory name: a hash of the configuration and `WORLD_VERSION`."""
    content = json.dumps([WORLD_VERSION, config.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
