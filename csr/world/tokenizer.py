"""A small byte-level BPE tokenizer: any text survives it, and the world's words are one token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csr.world.captions import DESCRIBE_VARIANTS, phrase
from csr.world.questions import presence_question
from csr.world.scenes import COLOURS, POSITIONS, SHAPES, SceneObject

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"
SPECIALS = (PAD, BOS, EOS, IMAGE)
"""In the order of their ids, from 0."""
PAD_ID, BOS_ID, EOS_ID, IMAGE_ID = range(4)

_VOCABULARY_SIZE = 512

# Sampled text is a response, never a prompt, so the image marker has no place in it.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ ' ASSISTANT: ' }}"
    "{% elif message['role'] == 'user' %}{{ 'USER: ' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}"
    "{% elif message['role'] == 'system' %}{{ ' ' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
"""As LLaVA-1.5's: a response is the generation prompt, a space, the text, and EOS."""


def build_tokenizer(*, closed: bool) -> PreTrainedTokenizerFast:
    """Trained on all that the world can say.

    `closed` sets <s> and </s> around every text, as the reward model's text encoder reads
    it; the policy's tokenizer adds nothing by itself.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY_SIZE,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    if closed:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A {EOS}", special_tokens=[(BOS, BOS_ID), (EOS, EOS_ID)]
        )
    wrapped: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens={"image_token": IMAGE},
        clean_up_tokenization_spaces=False,
        padding_side="right",
        model_max_length=2048,
    )
    return wrapped


def _corpus() -> list[str]:
    """Every sentence in both templates, every question, and the template's own words."""
    everything = [
        SceneObject(name=name, colour=colour, position=position)
        for name in SHAPES
        for colour in COLOURS
        for position in POSITIONS
    ]
    lines = [phrase(item, template) for item in everything for template in (0, 1)]
    for name in SHAPES:
        for question in (
            presence_question(name),
            f"What color is the {name}?",
            f"Where is the {name}?",
        ):
            lines += [f"USER: {question} ASSISTANT: {answer}." for answer in ("Yes", "No")]
    lines += [f"USER: {text} ASSISTANT: A" for text in DESCRIBE_VARIANTS] * 10
    lines += [f"{word.capitalize()}." for word in (*COLOURS, *POSITIONS)] * 10
    return lines
