"""The vLLM engine's life inside our process: start, reload, stop, and leave nothing behind.

vLLM expects to own its process. In ours a trainer runs too, so everything that it changes
globally while starting (environment variables, torch's thread setting, random states) is put back.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import logging
import os
import random
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from csr.errors import CSRError, EnvironmentFault, ModelError
from csr.planning import PlannedCache

_CPU_BLOCK_TOKENS = 32
"""Prefix-cache granularity on CPU: vLLM's default of 128 never matches a short prompt."""
_GPU_BLOCK_TOKENS = 16
"""The same on a GPU: vLLM's default, which stays."""
_CPU_KV_CACHE_GIB = 2.0
_GIB = 1 << 30
_STRUCTURED_OUTPUTS = {"backend": "xgrammar", "disable_any_whitespace": True}
"""One grammar engine for all requests; free whitespace would let a weak model write nothing else.
"""
_MAY_ATTEND_BOTH_WAYS = ("bagel", "gemma", "molmo", "moondream", "paligemma")
"""How the names of the families begin some of which vLLM 0.32 knows to do so."""
MAX_LOGPROBS = 128
"""Most alternatives that the engine reports for one token."""

_engine_alive: weakref.ref[Any] | None = None
"""The engine of this process. There is one at most: stopping one tears down what others use."""


def require_vllm() -> None:
    """EnvironmentFault where vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        raise EnvironmentFault(
            "The sampler 'vllm' needs vLLM, which is not installed. Run `pip install 'csr[cuda]'` "
            "on a GPU machine or `pip install 'csr[cpu]'` elsewhere, or set the sampler to "
            "'transformers'."
        )


def may_attend_both_ways(model_path: Path) -> bool:
    """Whether `check_attention` is worth asking before the engine starts: it imports vLLM."""
    config = json.loads((model_path / "config.json").read_text(encoding="utf-8"))
    name = str(config.get("model_type", ""))
    return name.startswith(_MAY_ATTEND_BOTH_WAYS) or "is_mm_prefix_lm" in config


def check_attention(model_path: Path) -> None:
    """ModelError where vLLM would attend to an image otherwise than the model does.

    Image tokens of some families (Gemma 3, PaliGemma) see each other in both directions. vLLM's
    attention for CPUs leaves that out without a word, and every log-probability is another.
    """
    with _contained():
        from vllm.platforms import current_platform

        if not current_platform.is_cpu():
            return
        import vllm.config  # noqa: F401  # the module below needs it imported first
        from transformers import AutoConfig
        from vllm.transformers_utils import model_arch_config_convertor as architectures

        config = AutoConfig.from_pretrained(str(model_path), trust_remote_code=False)
        known = architectures.MODEL_ARCH_CONFIG_CONVERTORS
        reader = known.get(config.model_type, architectures.ModelArchConfigConvertorBase)
        if reader(config, config.get_text_config()).is_mm_prefix_lm():
            raise ModelError(
                f"{model_path} is a {config.model_type} model, whose image tokens see each other "
                "in both directions. vLLM on a CPU reads them in one, so it would sample from "
                "another policy than the one that is trained. Set the sampler to 'transformers', "
                "or use a GPU."
            )


def start_engine(model_path: Path, *, kv_cache_gib: float | None, **options: Any) -> Any:
    """A `vllm.LLM` in this process. EnvironmentFault without vLLM, ModelError where it refuses.

    `kv_cache_gib` None leaves the size to `gpu_memory_utilization` on a GPU, and is 2 GiB on a
    CPU, where vLLM would otherwise take most of the machine's memory.
    """
    global _engine_alive
    require_vllm()
    if _engine_alive is not None and _engine_alive() is not None:
        raise EnvironmentFault(
            "This process already runs a vLLM engine, and stopping one would break the other. "
            "Close the first sampler, or run the second in a process of its own."
        )
    check_attention(model_path)
    with _contained():
        import vllm
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            # vLLM rewinds a seeded request's generator where its prompt is read in parts; torch's
            # CPU generator cannot be rewound, and the engine would die. So prompts stay whole.
            whole_prompts = {"enable_chunked_prefill": False}
            options |= {"block_size": _CPU_BLOCK_TOKENS, "enforce_eager": True, **whole_prompts}
            kv_cache_gib = kv_cache_gib or _CPU_KV_CACHE_GIB
        if kv_cache_gib is not None:
            options["kv_cache_memory_bytes"] = int(kv_cache_gib * _GIB)
        try:
            engine = vllm.LLM(
                str(model_path),
                enable_prefix_caching=True,
                limit_mm_per_prompt={"image": 1, "video": 0},  # no dummy video while it starts
                max_logprobs=MAX_LOGPROBS,
                logprobs_mode="raw_logprobs",
                trust_remote_code=False,
                use_tqdm_on_load=False,
                structured_outputs_config=_STRUCTURED_OUTPUTS,
                **options,
            )
        except CSRError:
            raise
        except Exception as error:  # vLLM raises a dozen unrelated types while starting
            raise ModelError(
                f"vLLM cannot serve {model_path}: {_reason(error)} Check that vLLM supports this "
                "architecture and that memory suffices (the sampler's gpu_memory_utilization, "
                "kv_cache_gib and max_context_tokens), or set the sampler to 'transformers'."
            ) from error
    _engine_alive = weakref.ref(engine)
    return engine


def planned_caches(kv_cache_gib: float | None) -> tuple[PlannedCache, PlannedCache]:
    """The KV cache that `start_engine` makes on a GPU, and on a CPU."""
    own = None if kv_cache_gib is None else kv_cache_gib * _GIB
    on_cpu = (kv_cache_gib or _CPU_KV_CACHE_GIB) * _GIB
    return (
        PlannedCache(num_bytes=own, block_tokens=_GPU_BLOCK_TOKENS),
        PlannedCache(num_bytes=on_cpu, block_tokens=_CPU_BLOCK_TOKENS),
    )


def reload_weights(engine: Any, model_path: Path) -> None:
    """Other weights of the same architecture.

    All three caches hold what the old policy made, so all are emptied, always.
    """
    with _contained():
        try:
            engine.collective_rpc("reload_weights", kwargs={"weights_path": str(model_path)})
        except Exception as error:
            raise ModelError(
                f"vLLM cannot load the weights of {model_path}: {_reason(error)} They must have "
                "the tensors of the model that the engine started with."
            ) from error
        empty_caches(engine)


def empty_caches(engine: Any) -> None:
    """Forget every image and every token: what comes is computed as in a new engine."""
    engine.llm_engine.reset_encoder_cache()
    emptied = engine.reset_prefix_cache()
    engine.reset_mm_cache()
    assert emptied, "no request runs between two stages"


def stop_engine(engine: Any) -> None:
    """Free the engine's memory. vLLM ends its process groups with it."""
    global _engine_alive
    _engine_alive = None
    engine.llm_engine.engine_core.shutdown()
    gc.collect()


def checkpoint_dtype(model_path: Path) -> str:
    """The dtype that the checkpoint was saved in; vLLM's own "auto" would halve a float32 one."""
    config = json.loads((model_path / "config.json").read_text())
    for part in (config, config.get("text_config", {})):
        if dtype := part.get("dtype") or part.get("torch_dtype"):
            return str(dtype)
    return "auto"


def architecture(model_path: Path, processor: Any) -> str:
    """What an engine is built for: equal strings mean that weights alone can be exchanged."""
    config = json.loads((model_path / "config.json").read_text())
    described = {
        "config": {k: v for k, v in config.items() if k not in _NOT_ARCHITECTURE},
        "vocabulary": processor.tokenizer.get_vocab(),
        "images": processor.image_processor.to_dict(),
    }
    return json.dumps(described, sort_keys=True, default=str)


_NOT_ARCHITECTURE = ("_name_or_path", "transformers_version", "use_cache")


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Undo what vLLM changes in the process besides making an engine."""
    import numpy as np
    import torch

    environment = dict(os.environ)
    set_num_threads, num_threads = torch.set_num_threads, torch.get_num_threads()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    logging.getLogger("vllm.v1.worker.cpu_worker").addFilter(_not_about_threads)
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
            # vLLM looks at names of torch that are deprecated; nobody here can mend that.
            warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
            yield
    finally:
        torch.set_num_threads = set_num_threads
        torch.set_num_threads(num_threads)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


def _not_about_threads(record: logging.LogRecord) -> bool:
    """Drops a warning that the CPU worker repeats for each image."""
    return "set_num_threads" not in record.getMessage()


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The first line of a failed validation only counts the errors.
    text = " ".join(lines[:3])[:400] if lines else type(error).__name__
    return text if text.endswith(".") else text + "."
