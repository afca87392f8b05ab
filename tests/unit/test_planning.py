"""What components tell of their work before a run, by hand."""

import json
from pathlib import Path

import pytest

from csr.evaluation import captions, multiple_choice, pope, rationales
from csr.planning import (
    ExpectedResponse,
    encoder_flops,
    num_distinct_parents,
    scoring_call,
    text_tokens,
    tree_calls,
)
from csr.samplers import scripted, transformers, vllm
from csr.samplers._contrast import Contrast
from csr.sources import csr, illume, povid, sima, stic
from csr.sources._policy_rewrites import PolicyRewriteSettings
from csr.trainers import dpo, sft
from csr.trainers._image_terms import ImageTerms
from rewards.similarity import clip

EXPECTED = ExpectedResponse(num_sentences=3, tokens_per_sentence=10)
LIMITS = {"max_step_tokens": 99, "max_response_tokens": 999}


@pytest.mark.parametrize(
    ("parents", "children", "chosen", "expected"),
    [
        (1, 5, 3, 1),  # all have the root's only child as parent
        (3, 5, 1, 1),
        (3, 5, 3, 3 * (1 - 120 / 455)),  # C(10, 3) and C(15, 3)
        (3, 5, 15, 3),
        (2, 2, 2, 2 * (1 - 1 / 6)),
    ],
)
def test_parents_that_are_hit(parents: int, children: int, chosen: float, expected: float) -> None:
    assert num_distinct_parents(parents, children, chosen) == pytest.approx(expected)


def test_a_tree_grows_by_what_is_kept() -> None:
    calls = tree_calls(EXPECTED, num_candidates=2, num_kept=3, max_steps=9, **LIMITS)
    assert [call.num_contexts for call in calls] == [1, 2, 3]
    assert [call.num_sequences for call in calls] == [2, 4, 6]
    assert [call.prefix_tokens for call in calls] == [0, 10, 20]
    # Level 3: three of the four second sentences, which cannot all be one first sentence's.
    assert [call.distinct_prefix_tokens for call in calls] == pytest.approx([0, 20, 50])
    assert len(tree_calls(EXPECTED, num_candidates=2, num_kept=3, max_steps=2, **LIMITS)) == 2


def test_an_encoder_by_hand() -> None:
    # 4 x 2 x 2 + 2 x 2 x 3 = 28 weights; two layers; 5 tokens that each see 5, key and value.
    assert encoder_flops(num_layers=2, width=2, mlp_width=3, num_tokens=5) == (
        2 * 2 * 28 * 5 + 4 * 2 * 2 * 25
    )


# ---------------------------------------------------------------- sources


def test_csr_tells_its_tree() -> None:
    config = csr.Config(num_candidates=2, keep_top=1, keep_bottom=1)
    work = csr.planned_work(config, EXPECTED)
    assert [call.num_sequences for call in work.calls] == [2, 4, 4]
    assert work.num_nodes == work.num_compared_texts == 10
    assert (work.node_tokens, work.num_responses, work.lesson_tokens) == (10, 4, 30)


def test_csr_keeps_to_its_limits() -> None:
    short = csr.Config(max_step_tokens=4, max_response_tokens=7)
    work = csr.planned_work(short, EXPECTED)
    assert work.node_tokens == 4
    assert len(work.calls) == 2


def test_sima_asks_both_orders_about_the_same_image() -> None:
    config = sima.Config(max_response_tokens=20, max_verdict_tokens=6)
    greedy, sampled, critic = sima.planned_work(config, EXPECTED).calls
    assert greedy.generated_tokens == sampled.generated_tokens == 20
    assert (critic.num_contexts, critic.num_questions, critic.generated_tokens) == (2, 2, 6)
    assert critic.question_tokens == text_tokens(config.critic_template) + 60
    assert critic.shared == "image"
    scored = sima.planned_work(config.model_copy(update={"verdict": "likelier"}), EXPECTED)
    assert scored.calls[-1].all_generated_tokens == 0
    assert scored.calls[-1].num_contexts == 4


def test_stic_asks_half_of_the_prompts_each_way() -> None:
    config = stic.Config(bad_prompt_share=0.25, good_prompt="x" * 40)
    work = stic.planned_work(config, EXPECTED)
    careful, score, misled, corrupted, _ = work.calls
    assert careful.question_tokens == 10
    assert (misled.num_contexts, corrupted.num_contexts) == (0.25, 0.75)
    assert (misled.shared, corrupted.shared) == ("image", "nothing")
    assert score == scoring_call("score", 1, 30, shared="image")
    assert sum(call.all_generated_tokens for call in work.calls) == 60
    described = stic.planned_work(stic.Config(stage="description"), EXPECTED)
    assert (described.num_nodes, described.lesson_extra_tokens) == (1, 30)


def test_illume_may_train_on_all_that_it_samples() -> None:
    config = illume.Config(num_samples=3, temperatures=(0.1, 0.5), max_response_tokens=25)
    work = illume.planned_work(config, EXPECTED)
    assert [call.num_candidates for call in work.calls] == [3, 3]
    assert (work.num_nodes, work.max_lessons, work.lesson_tokens) == (6, 6, 25)
    pairs = illume.planned_work(config.model_copy(update={"makes": "pairs"}), EXPECTED)
    assert pairs.max_lessons == 1


def test_povid_samples_nothing_where_rules_rewrite() -> None:
    rules = povid.Config(vocabulary="v", references="r", num_edits=3)
    work = povid.planned_work(rules, EXPECTED)
    assert work.calls == (scoring_call("score", 2, 30, shared="image"),)
    assert work.num_compared_texts == 6
    policy = povid.Config(
        rewriter="policy",
        policy_rewrites=PolicyRewriteSettings(instruction="{reference}" + "x" * 29),
        min_similarity_drop=None,
    )
    rewrite, _ = povid.planned_work(policy, EXPECTED).calls
    assert (rewrite.question_tokens, rewrite.generated_tokens) == (40, 37.5)
    assert povid.planned_work(policy, EXPECTED).num_compared_texts == 0


# ---------------------------------------------------------------- the other components


def test_samplers_tell_their_cache() -> None:
    config = vllm.Config(tensor_parallel_size=2, gpu_memory_utilization=0.5)
    engine = vllm.planned_engine(config)
    assert (engine.num_gpus, engine.memory_share, engine.max_sequences) == (2, 0.5, 256)
    assert engine.cache is not None
    assert engine.cache.num_bytes is None
    assert engine.cpu_cache is not None
    assert engine.cpu_cache.num_bytes == 2 * 2**30
    fixed = vllm.planned_engine(vllm.Config(kv_cache_gib=3)).cache
    assert fixed is not None
    assert fixed.num_bytes == 3 * 2**30
    contrast = Contrast(content_free="both", alpha=1.0, beta=0.1)
    plain = transformers.planned_engine(transformers.Config(batch_size=7, contrast=contrast))
    assert (plain.cache, plain.max_sequences, plain.num_views) == (None, 7, 3)
    assert not hasattr(scripted, "planned_engine")


def test_trainers_tell_their_sequences() -> None:
    training = dpo.planned_training(dpo.Config(num_epochs=2), 100)
    assert (training.num_updates, training.num_reference_rows) == (200, 100)
    assert (training.sequences, training.reference_sequences) == (2, 2)
    terms = ImageTerms(corruption="crop:0.2", conditional_weight=1.0)
    with_terms = dpo.planned_training(dpo.Config(image_terms=terms), 100)
    assert (with_terms.sequences, with_terms.reference_sequences) == (3, 3)
    imitation = sft.planned_training(sft.Config(num_steps=5, batch_size=2), 100)
    assert (imitation.num_updates, imitation.num_reference_rows) == (5 * 2 * 8, 0)
    assert imitation.sequences == 1


def test_clip_is_planned_from_its_configuration() -> None:
    config = clip.Config(model="ViT-L-14-336", pretrained="openai", precision="bf16")
    planned = clip.planned_similarity(config)
    assert planned is not None
    assert planned.flops_per_image == pytest.approx(0.38e12, rel=0.01)
    assert planned.flops_per_text == pytest.approx(13.3e9, rel=0.01)
    assert planned.num_parameters == pytest.approx(428e6, rel=0.01)
    assert planned.dtype == "bfloat16"


@pytest.mark.parametrize("model", ["hf-hub:nobody/nothing", "ViT-B-16-SigLIP", "/none", "../x"])
def test_a_clip_that_does_not_tell_its_towers_is_not_guessed(model: str) -> None:
    assert clip.planned_similarity(clip.Config(model=model)) is None


def test_a_clip_of_the_user_is_read_from_its_directory(tmp_path: Path) -> None:
    vision = {"image_size": 32, "patch_size": 8, "width": 4, "layers": 1, "mlp_ratio": 2}
    text = {"context_length": 6, "vocab_size": 10, "width": 2, "layers": 1}
    document = {"model_cfg": {"embed_dim": 4, "vision_cfg": vision, "text_cfg": text}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(document))
    planned = clip.planned_similarity(clip.Config(model=str(tmp_path)))
    assert planned is not None
    # 17 positions, 4 x 16 + 2 x 4 x 8 weights; 6 positions, 4 x 4 + 2 x 2 x 8.
    assert planned.flops_per_image == 2 * 128 * 17 + 4 * 4 * 17**2
    assert planned.flops_per_text == 2 * 48 * 6 + 4 * 2 * 6**2
    assert planned.num_parameters == 128 + 48 + 20


def test_benchmarks_count_their_questions(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"id": "1"}\n{"id": "2"}\n{"id": "3"}\n')
    where = {"prompts": str(file), "images": str(tmp_path)}
    asked = captions.planned_questions(captions.Config(**where, max_prompts=2), EXPECTED)
    assert asked.num_prompts == 2
    assert [call.generated_tokens for call in asked.calls] == [30]
    cut = rationales.planned_questions(rationales.Config(**where, max_response_tokens=7), EXPECTED)
    assert (cut.num_prompts, cut.calls[0].generated_tokens) == (3, 7)
    nowhere = captions.Config(prompts=str(tmp_path / "none"), images=str(tmp_path))
    assert captions.planned_questions(nowhere, EXPECTED).num_prompts is None


def test_closed_questions_score_their_labels(tmp_path: Path) -> None:
    where = {"prompts": str(tmp_path / "none"), "images": str(tmp_path)}
    plain = pope.planned_questions(pope.Config(**where), EXPECTED)
    assert [call.name for call in plain.calls] == ["answer"]
    debiased = pope.Config(**where, calibration="content_free", content_free="both")
    _, labels, blind, grey = pope.planned_questions(debiased, EXPECTED).calls
    assert labels.num_contexts == blind.num_contexts == grey.num_contexts == 8
    assert not blind.with_image
    described = pope.planned_questions(pope.Config(**where, describe_first="x" * 8), EXPECTED)
    assert [call.generated_tokens for call in described.calls] == [30, 32]
    assert described.calls[1].question_tokens == 32
    choices = multiple_choice.planned_questions(multiple_choice.Config(**where), EXPECTED)
    assert [call.num_contexts for call in choices.calls] == [1, 16]
