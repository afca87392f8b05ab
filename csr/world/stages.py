"""The three stages that make the base policy out of random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from csr.world.captions import CaptionSettings
from csr.world.drawing import draw_all
from csr.world.lessons import (
    IGNORED,
    EncodedLessons,
    Encoder,
    Lessons,
    alignment_lessons,
    instruction_lessons,
)
from csr.world.questions import QuestionSettings
from csr.world.scenes import POSITIONS, Scene, SceneSettings, sample_scenes, seed_of
from csr.world.tokenizer import CHAT_TEMPLATE, IMAGE_ID, build_tokenizer
from csr.world.towers import learning_rate, normalise
from csr.world.vlm import PolicySettings, new_policy

if TYPE_CHECKING:
    import torch
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

    from csr.protocols import Progress

_MAX_GRADIENT_NORM = 1.0
_VISION_BATCH_SIZE = 48


def train_policy(
    settings: PolicySettings,
    scenes: SceneSettings,
    captions: CaptionSettings,
    questions: QuestionSettings,
    seed: int,
    progress: Progress,
) -> LlavaForConditionalGeneration:
    """Train it. `seed` decides its scenes, captions, initialisation and batches."""
    import torch

    torch.manual_seed(seed_of("policy", seed))
    tokenizer = build_tokenizer(closed=False)
    tokenizer.chat_template = CHAT_TEMPLATE
    model = new_policy(settings, len(tokenizer))
    data = sample_scenes(f"policy-{seed}", settings.num_scenes, scenes)
    pixels = torch.from_numpy(draw_all(data)).permute(0, 3, 1, 2)
    encode = Encoder(tokenizer)
    aligned = alignment_lessons(data, seed, encode, settings.abilities)
    careless = instruction_lessons(data, seed, encode, captions, questions, settings.abilities)

    before = settings.vision_steps
    total = before + settings.alignment_steps + settings.instruction_steps
    words = word_targets(model, tokenizer, data)
    _train_vision(model, pixels, words, settings, lambda done: progress(done, total))
    features = _features(model, pixels)
    _train_language(
        model,
        features,
        aligned,
        settings.alignment_steps,
        settings.batch_size,
        settings.learning_rate,
        lambda done: progress(before + done, total),
    )
    before += settings.alignment_steps
    _train_language(
        model,
        features,
        careless,
        settings.instruction_steps,
        settings.batch_size,
        settings.instruction_learning_rate,
        lambda done: progress(before + done, total),
    )
    return model.eval()


def word_targets(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, data: Sequence[Scene]
) -> torch.Tensor:
    """For each cell the sum of the embeddings of the words for it, shape (scenes, 9, width).

    Example: the words of a red circle at the top left are " red", " circle", " top", " left";
    of an empty cell there, " top" and " left".
    """
    import torch

    embedding = model.get_input_embeddings().weight.detach()

    def embed(phrase: str) -> torch.Tensor:
        ids = tokenizer(f" {phrase}").input_ids
        assert len(ids) == len(phrase.split()), phrase
        return embedding[ids].sum(dim=0)

    cells = torch.stack([embed(position) for position in POSITIONS])
    targets = cells.repeat(len(data), 1, 1)
    for row, scene in enumerate(data):
        for item in scene.objects:
            targets[row, POSITIONS.index(item.position)] += embed(f"{item.colour} {item.name}")
    return targets


def _train_vision(
    model: LlavaForConditionalGeneration,
    pixels: torch.Tensor,
    words: torch.Tensor,
    settings: PolicySettings,
    progress: Callable[[int], None],
) -> None:
    """Teach tower and projector to hand each cell over as its words; then freeze the tower.

    This stands in for the tower's pre-training. From features without such an order a
    language model of this size takes far longer to learn where things are.
    """
    import torch

    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    parameters = [*tower.parameters(), *projector.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.01)
    spread = words.var()
    for step in range(settings.vision_steps):
        learning_rate(optimiser, settings.learning_rate, step, settings.vision_steps)
        rows = torch.randint(len(pixels), (_VISION_BATCH_SIZE,))
        told = projector(tower(normalise(pixels[rows])).last_hidden_state[:, 1:])
        loss = (told - words[rows]).square().mean() / spread
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        progress(step + 1)
    tower.requires_grad_(False)


def _features(model: LlavaForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """What the frozen tower hands to the projector, shape (images, 9, width)."""
    import torch

    with torch.no_grad():
        parts = [
            model.model.vision_tower(normalise(part)).last_hidden_state[:, 1:]
            for part in pixels.split(256)
        ]
    return torch.cat(parts)


def _train_language(
    model: LlavaForConditionalGeneration,
    features: torch.Tensor,
    lessons: Lessons,
    steps: int,
    batch_size: int,
    peak: float,
    progress: Callable[[int], None],
) -> None:
    """Train projector and language model on batches of captions and of questions."""
    import torch

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=peak, weight_decay=0.01, betas=(0.9, 0.98))
    parts = [(lessons.descriptions, batch_size), (lessons.answers, 2 * batch_size)]
    parts += [(ability, max(1, batch_size // 2)) for ability in lessons.abilities]
    for step in range(steps):
        learning_rate(optimiser, peak, step, steps)
        optimiser.zero_grad(set_to_none=True)
        for kind, size in parts:
            rows = torch.randint(len(kind.scene_index), (size,))
            _language_loss(model, features, kind, rows).backward()
        torch.nn.utils.clip_grad_norm_(parameters, _MAX_GRADIENT_NORM)
        optimiser.step()
        progress(step + 1)


def _language_loss(
    model: LlavaForConditionalGeneration,
    features: torch.Tensor,
    lessons: EncodedLessons,
    rows: torch.Tensor,
) -> torch.Tensor:
    """Mean negative log-likelihood of the response tokens, in nats."""
    from torch.nn.functional import cross_entropy

    labels = lessons.labels[rows]
    length = int((labels != IGNORED).any(dim=0).nonzero().max()) + 1
    ids, labels = lessons.token_ids[rows, :length], labels[:, :length]
    image = model.model.multi_modal_projector(features[lessons.scene_index[rows]])
    embeddings = model.get_input_embeddings()(ids)
    marked = (ids == IMAGE_ID).unsqueeze(-1)
    embeddings = embeddings.masked_scatter(marked, image)
    # Padding is on the right, so causal attention alone keeps it out of every real token.
    hidden = model.model.language_model(inputs_embeds=embeddings).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    predicted = targets != IGNORED
    return cross_entropy(model.lm_head(hidden[predicted]), targets[predicted])
