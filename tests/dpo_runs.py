"""Runs of the DPO trainer for the tests, and the same figures without its code.

The reference figures come from the model itself, one unpadded sequence at a time.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from csr.checkpoints import base_policy
from csr.images import load_image
from csr.rendering import load_processor, render_prompt
from csr.trainers._batches import PairCollator
from csr.trainers._pairs import read_pairs
from csr.trainers._policy_files import load_policy
from csr.trainers._trl import make_trainer
from csr.trainers._watch import TrainingWatch
from csr.trainers.dpo import Config, build
from tests.tiny_models import make_llava, make_qwen2_5_vl, make_smolvlm

ROOT = Path(__file__).parents[1]
MAKERS = {"llava": make_llava, "qwen2_5_vl": make_qwen2_5_vl, "smolvlm": make_smolvlm}
FAST = Config(
    batch_size=2,
    gradient_accumulation_steps=1,
    lora_rank=4,
    lora_alpha=8,
    learning_rate=1e-3,
    num_epochs=2,
    warmup_ratio=0.0,
)
SEED = 7
RESUMABLE = FAST.model_copy(
    update={
        "batch_size": 1,
        "gradient_accumulation_steps": 2,
        "lora_dropout": 0.1,  # so that the random state matters
        "checkpoint_every_num_steps": 1,
    }
)
"""On six pairs: 6 reference batches, then 6 steps of 2 batches, 3 steps an epoch."""
SHARDED = {
    "num_processes": 2,
    "batch_size": 1,
    "checkpoint_every_num_steps": 0,
    "accelerate_config": ROOT / "deploy" / "accelerate" / "fsdp.yaml",
}
"""Of two processes, each with a part of the weights; the fixture `cpu_shards` lets a CPU do it."""


def silent(done, total):
    pass


def train(
    checkpoint, pairs_path, output_dir, *, config=FAST, seed=SEED, progress=silent, keep_in=None
):
    return build(config).train(
        policy=base_policy(str(checkpoint)),
        data_path=pairs_path,
        output_dir=output_dir,
        seed=seed,
        progress=progress,
        checkpoint_dir=keep_in,
    )


def plain_logprobs(model, processor, prompt, response_ids):
    """One sequence, no padding, no code of the trainer: the log-probability of each token."""
    logprobs = plain_distributions(model, processor, prompt, response_ids)
    return [row[token_id].item() for row, token_id in zip(logprobs, response_ids, strict=True)]


def plain_distributions(model, processor, prompt, response_ids):
    """As `plain_logprobs`, but of every token that could stand there: (tokens, vocabulary)."""
    text = render_prompt(processor, prompt.text)
    bos = processor.tokenizer.bos_token
    special = not (bos and text.startswith(bos))
    inputs = processor(
        text=[text],
        images=[load_image(prompt.image)],
        return_tensors="pt",
        add_special_tokens=special,
    )
    response = torch.tensor([list(response_ids)])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], response], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if "mm_token_type_ids" in inputs:
        zeros = torch.zeros_like(response)
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], zeros], dim=1)
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    return torch.log_softmax(logits[-len(response_ids) - 1 : -1], dim=-1)


def plain_model(checkpoint, dtype=torch.float32):
    return AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=dtype).eval()


def adapted_names(checkpoint_file, adapter_file):
    """Names of the checkpoint's weights that the adapter file has a delta for."""
    stems = {
        name.removeprefix("base_model.model.").split(".lora_")[0]
        for name in load_file(adapter_file)
    }
    tails = {stem[stem.index("layers.") :] for stem in stems}
    return {
        name
        for name in load_file(checkpoint_file)
        if "vision" not in name and "layers." in name
        and name[name.index("layers.") :].removesuffix(".weight") in tails
    }  # fmt: skip


class Prepared:
    """A trainer up to the point where the reference is cached, for looking inside."""

    def __init__(self, family, pairs_path, work, config=FAST, checkpoint=None):
        path = str(checkpoint or family[0])
        pairs = read_pairs(pairs_path)
        terms = config.image_terms
        self.collator = PairCollator(load_processor(path), pairs, terms and terms.corruption)
        self.watch = TrainingWatch([pair.name for pair in pairs], 1, silent)
        self.trainer = make_trainer(
            load_policy(path, config.dtype, "cpu"),
            self.collator.processor,
            self.collator,
            self.watch,
            config=config,
            work_dir=work,
            device="cpu",
            seed=SEED,
        )
