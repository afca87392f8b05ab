"""Loads a policy to train, and writes the trained one so that vLLM loads it as it did the old."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from csr.checkpoints import resolve_model
from csr.errors import EnvironmentFault, ModelError, NumericalError

DtypeName = Literal["auto", "float32", "bfloat16"]
DeviceName = Literal["auto", "cpu", "cuda"]

_STORED_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_COMPANION_SUFFIXES = (".json", ".jinja", ".txt", ".model")
_WEIGHT_INDEX = ".safetensors.index.json"


def pick_device(name: DeviceName) -> str:
    """The device "cpu" or "cuda". EnvironmentFault where CUDA is asked for and absent."""
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise EnvironmentFault(
            "The trainer's device is 'cuda', but torch sees no CUDA device. Set it to 'auto' or "
            "'cpu', or install the CUDA build of torch."
        )
    return "cuda" if available and name != "cpu" else "cpu"


def stored_dtype(directory: Path) -> str:
    """The floating-point type of most weights: "float32", "float16" or "bfloat16".

    ModelError for quantised weights, which cannot be trained and merged.
    """
    counts: Counter[str] = Counter(_stored_tensors(directory).values())
    code = counts.most_common(1)[0][0]
    if code not in _STORED_DTYPES:
        raise ModelError(
            f"The weights of {directory} are stored as {code}: a quantised checkpoint cannot be "
            "trained and merged. Use the float32, float16 or bfloat16 checkpoint."
        )
    return _STORED_DTYPES[code]


def load_policy(model_path: str, dtype: DtypeName, device: str) -> Any:
    """The whole model in eval mode on `device`.

    "auto" keeps the stored type, except that float16 is widened to float32: float16
    weights overflow in training, and as bfloat16 they would lose bits in every
    iteration. ModelError where the checkpoint cannot be loaded, or lacks weights that
    would silently be random.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    directory = resolve_model(model_path)
    stored = stored_dtype(directory)
    name = dtype if dtype != "auto" else ("float32" if stored == "float16" else stored)
    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            directory,
            dtype=getattr(torch, name),
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises a dozen unrelated types here
        raise ModelError(
            f"{directory} cannot be loaded as a vision-language model "
            f"({type(error).__name__}: {str(error)[:300]}). Give a checkpoint of a family that "
            "transformers' AutoModelForImageTextToText supports."
        ) from error
    absent = sorted({*info["missing_keys"], *(str(k) for k in info["mismatched_keys"])})
    if absent:
        raise ModelError(
            f"The checkpoint {directory} lacks weights that its configuration needs: "
            f"{', '.join(absent[:5])} ({len(absent)} in all). They would be random. Fetch or save "
            "the checkpoint again."
        )
    return model.to(device).eval()


def save_adapter(peft_model: Any, target: Path, weights: dict[str, Any] | None = None) -> None:
    """The LoRA adapter alone, in PEFT's format, as safetensors.

    `weights`: the model's, by name, where `peft_model` itself holds a part of them alone.
    """
    peft_model.save_pretrained(target, state_dict=weights)
    (target / "README.md").unlink(missing_ok=True)
    file = target / "adapter_config.json"
    config = json.loads(file.read_text())
    # PEFT keeps a set, whose order changes from process to process.
    config["target_modules"] = sorted(config["target_modules"])
    file.write_text(json.dumps(config, indent=2, sort_keys=True))


def save_merged(policy_path: str, adapter: Path, target: Path, dtype: DtypeName) -> None:
    """The whole policy with the adapter merged in, a drop-in for the one at `policy_path`.

    Weight names and type are those of the old policy, and every other file (processor,
    template, configuration) is copied from it byte for byte. The policy is read anew: the one that
    was trained may be spread over GPUs. NumericalError where merged weights are not finite;
    ModelError where transformers would write other weight names than it read.
    """
    import torch
    from peft import PeftModel

    source = resolve_model(policy_path)
    adapted = PeftModel.from_pretrained(load_policy(policy_path, dtype, "cpu"), str(adapter))
    try:
        merged = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise NumericalError(
            f"The trained adapter holds values that are not finite ({error}). Lower the learning "
            "rate, or set a smaller max_grad_norm."
        ) from error
    merged.to(getattr(torch, stored_dtype(source)))
    merged.save_pretrained(target, max_shard_size="5GB")
    for file in source.iterdir():
        if file.suffix in _COMPANION_SUFFIXES and not file.name.endswith(_WEIGHT_INDEX):
            shutil.copyfile(file, target / file.name)
    _check_same_names(source, target)


def _check_same_names(source: Path, target: Path) -> None:
    before, after = _stored_tensors(source).keys(), _stored_tensors(target).keys()
    if before != after:
        changed = sorted(before ^ after)
        raise ModelError(
            f"The trained policy's weight names differ from those of {source}: "
            f"{', '.join(changed[:5])} ({len(changed)} in all). An engine that loads the old "
            "checkpoint would not load the new one. Load and save the checkpoint once with this "
            "version of transformers, and start from that."
        )


def _stored_tensors(directory: Path) -> dict[str, str]:
    """Tensor name -> safetensors type code, from the headers alone."""
    from safetensors import safe_open

    tensors: dict[str, str] = {}
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as weights:
            names = weights.keys()
            tensors |= {name: weights.get_slice(name).get_dtype() for name in names}
    return tensors
