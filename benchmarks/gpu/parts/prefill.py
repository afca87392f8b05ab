"""Reading prompts: tokens a second with and without their images, and the images apart."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.engine import Engine
from benchmarks.gpu.inputs import FIRST_WORD_ID
from benchmarks.gpu.record import Json
from benchmarks.gpu.timing import seconds, spread
from csr.images import load_image
from csr.rendering import load_processor
from csr.samplers._vllm_policy import Job


def measure(bench: Bench) -> Json:
    """`with_images` and `text` read equally long prompts; `tower` and `preparation` are apart."""
    load, shape, engine = bench.size.load, bench.size.shape, bench.engine()
    number = load.prefill_prompts
    params: dict[str, Any] = {"max_tokens": 1, "temperature": 0.0}
    # New images each time: neither they nor their prompts are in any cache.
    sets = [bench.inputs.prompts(f"prefill-{n}", number) for n in range(load.rounds + 1)]
    length = engine.num_prompt_tokens(sets[0][0])
    written = _text_jobs(engine, sets[0], length, shape.vocabulary, params)
    unseen = iter(sets)

    def with_images() -> Any:
        return engine.run(engine.jobs(next(unseen), **params))

    def text() -> Any:
        engine.forget()
        return engine.run(written)

    runs = bench.in_turns({"with_images": with_images, "text": text}, "prefill")
    figures: Json = {"num_prompts": number, "prompt_tokens": length}
    for name, found in runs.items():
        middle = spread(seconds(found))["median"]
        work = shape.prefill_flops(length) + (name == "with_images") * shape.image_flops()
        figures[name] = {
            "seconds": spread(seconds(found)),
            "tokens_per_second": number * length / middle,
            "flops_per_second": number * work / middle,
        }
    both, alone = figures["with_images"]["seconds"], figures["text"]["seconds"]
    # Negative where preparing images on the CPU hides behind the GPU's work, or in noise.
    figures["seconds_per_image"] = (both["median"] - alone["median"]) / number
    bench.keep(figures)
    figures["tower"] = _tower(bench)
    bench.keep(figures)
    return figures | {"preparation": _preparation(bench)}


def _text_jobs(
    engine: Engine, prompts: Any, length: int, vocabulary: int, params: dict[str, Any]
) -> list[Job]:
    """Prompts of the same length without an image: made-up words stand in for it."""
    words = range(FIRST_WORD_ID, vocabulary)
    jobs = []
    for index, job in enumerate(engine.jobs(prompts, **params)):
        written = engine.num_prompt_tokens(job.prompt, with_image=False)
        filling = [words[(index * length + n) % len(words)] for n in range(length - written)]
        jobs.append(Job(job.prompt, tuple(filling), job.params, with_image=False))
    return jobs


def _tower(bench: Bench) -> Json:
    """A vision tower and projector of this shape alone, in batches, on random pixels."""
    import torch
    from transformers import AutoConfig, CLIPVisionModel

    shape, number = bench.size.shape, bench.size.load.prefill_prompts
    config = AutoConfig.from_pretrained(bench.models.base.model_path)
    dtype = torch.bfloat16 if bench.device == "cuda" else torch.float32
    with torch.device(bench.device):
        tower = CLIPVisionModel(config.vision_config).to(dtype).eval()
        projector = torch.nn.Sequential(
            torch.nn.Linear(shape.vision_width, shape.width),
            torch.nn.GELU(),
            torch.nn.Linear(shape.width, shape.width),
        ).to(dtype)
        pixels = torch.randn(number, 3, shape.image_size, shape.image_size, dtype=dtype)

    def encode() -> None:
        with torch.inference_mode():
            hidden = tower(pixels, output_hidden_states=True).hidden_states[-2]
            projector(hidden[:, 1:])

    runs = bench.in_turns({"tower": encode}, "vision tower")["tower"]
    middle = spread(seconds(runs))["median"]
    return {
        "seconds": spread(seconds(runs)),
        "images_per_second": number / middle,
        # transformers computes the last layer too, which nobody reads.
        "flops_per_second": number * shape.image_flops() / middle,
    }


def _preparation(bench: Bench) -> Json:
    """From a file to pixel values, on one thread of the CPU, as each image passes once."""
    processor = load_processor(bench.models.base.model_path)
    refs = bench.inputs.images("preparation", bench.size.load.prefill_prompts)

    def prepare() -> None:
        for ref in refs:
            processor.image_processor(load_image(ref), return_tensors="pt")

    runs = bench.in_turns({"prepare": prepare}, "image preparation")["prepare"]
    rates = [len(refs) / each for each in seconds(runs)]
    return {"images_per_second": spread(rates)}
