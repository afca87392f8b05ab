"""The tokenizer: nothing is lost, world words are one token, and the template is exact."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csr.world.captions import DESCRIBE, phrase
from csr.world.lessons import Encoder, Lesson, user_message
from csr.world.scenes import COLOURS, SHAPES, SceneObject
from csr.world.tokenizer import (
    BOS_ID,
    CHAT_TEMPLATE,
    EOS_ID,
    IMAGE_ID,
    PAD_ID,
    SPECIALS,
    build_tokenizer,
)

TOKENIZER = build_tokenizer(closed=False)
TOKENIZER.chat_template = CHAT_TEMPLATE
RESPONSE = "A red circle is at the top left."


def render(*messages, add_generation_prompt=False):
    return TOKENIZER.apply_chat_template(
        list(messages), add_generation_prompt=add_generation_prompt, tokenize=False
    )


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_survives(text):
    ids = TOKENIZER(text).input_ids
    assert TOKENIZER.decode(ids) == text
    assert max(ids, default=0) < len(TOKENIZER) <= 512


def test_specials_have_their_ids():
    assert TOKENIZER.convert_tokens_to_ids(list(SPECIALS)) == [PAD_ID, BOS_ID, EOS_ID, IMAGE_ID]
    assert (TOKENIZER.pad_token_id, TOKENIZER.eos_token_id) == (PAD_ID, EOS_ID)


@pytest.mark.parametrize("word", [*SHAPES, *COLOURS, "top", "bottom", "middle", "center", "left"])
def test_a_world_word_is_one_token(word):
    assert len(TOKENIZER(f" {word}").input_ids) == 1


def test_only_the_closed_tokenizer_adds_specials():
    ids = TOKENIZER(RESPONSE).input_ids
    assert build_tokenizer(closed=True)(RESPONSE).input_ids == [BOS_ID, *ids, EOS_ID]
    assert not {BOS_ID, EOS_ID} & set(ids)


def test_two_builds_are_equal():
    again = build_tokenizer(closed=False)
    assert again.backend_tokenizer.to_str() == TOKENIZER.backend_tokenizer.to_str()


def test_the_template_by_hand():
    assert render(user_message(DESCRIBE), add_generation_prompt=True) == (
        "USER: <image>\nDescribe the image. ASSISTANT:"
    )


@pytest.mark.parametrize("content", [RESPONSE, [{"type": "text", "text": RESPONSE}]])
def test_a_response_is_the_generation_prompt_a_space_the_text_and_eos(content):
    user = user_message(DESCRIBE)
    assistant = {"role": "assistant", "content": content}
    prompt = render(user, add_generation_prompt=True)
    assert render(user, assistant) == prompt + " " + RESPONSE + "</s>"


def test_plain_strings_and_several_turns():
    talk = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Sure?"},
    )
    assert render(*talk, add_generation_prompt=True) == (
        "Be brief. USER: Hello? ASSISTANT: Yes.</s>USER: Sure? ASSISTANT:"
    )


def test_lessons_are_encoded_as_the_whole_conversation_is_rendered():
    assistant = {"role": "assistant", "content": RESPONSE}
    rendered = render(user_message(DESCRIBE), assistant).replace("<image>", "<image>" * 9)
    lesson = Lesson(scene_index=4, prompt=DESCRIBE, response=RESPONSE)
    longer = Lesson(scene_index=5, prompt=DESCRIBE, response=f"{RESPONSE} {RESPONSE}")
    encoded = Encoder(TOKENIZER)([lesson, longer])
    ids = TOKENIZER(rendered).input_ids
    assert encoded.token_ids[0].tolist()[: len(ids)] == ids
    assert set(encoded.token_ids[0].tolist()[len(ids) :]) == {PAD_ID}
    assert encoded.scene_index.tolist() == [4, 5]


def test_only_the_response_and_its_eos_are_learnt():
    encoded = Encoder(TOKENIZER)([Lesson(scene_index=0, prompt=DESCRIBE, response=RESPONSE)])
    learnt = [token_id for token_id in encoded.labels[0].tolist() if token_id != -100]
    assert learnt == [*TOKENIZER(" " + RESPONSE).input_ids, EOS_ID]


def test_a_sentence_takes_few_tokens():
    item = SceneObject(name="diamond", colour="purple", position="bottom center")
    assert len(TOKENIZER(" " + phrase(item)).input_ids) <= 12
