"""What a checkpoint holds of a training, as safetensors and JSON; exact to the bit.

The adapter's weights, AdamW's moments, the schedule, the state of every random generator,
the history so far, and the reference log-probabilities where there is a reference.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from csr.errors import NumericalError

_ADAPTER = "adapter.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_STATE = "state.json"
_TRAINER_STATE = "trainer_state.json"
"""transformers' own record of steps and epochs, under the name that it looks for."""


def save_training(trainer: Any, rng_states: list[dict[str, Any]], folder: Path) -> None:
    """Fill `folder` with the state after the last step. `rng_states`: one for each process.

    NumericalError where a weight is not finite; a full disk is the caller's to tell.
    """
    from safetensors.torch import save_file

    adapter = _trainable(trainer.model)
    _check_finite(adapter, trainer.state.global_step)
    optimizer = trainer.optimizer.state_dict()
    save_file(adapter, folder / _ADAPTER)
    moments = {
        f"{index}.{name}": value
        for index, values in optimizer["state"].items()
        for name, value in values.items()
    }
    save_file(moments, folder / _OPTIMIZER)
    trainer.state.save_to_json(str(folder / _TRAINER_STATE))
    state = {
        "optimizer_groups": optimizer["param_groups"],
        "schedule": trainer.lr_scheduler.state_dict(),
        "rng": rng_states,
        "watch": trainer.watch.state(),
        "reference_logprobs": getattr(trainer.data_collator, "reference_logprobs", None),
    }
    (folder / _STATE).write_text(json.dumps(state))


def read_state(folder: Path) -> dict[str, Any]:
    """All but the tensors."""
    state: dict[str, Any] = json.loads((folder / _STATE).read_text())
    return state


def load_adapter(model: Any, folder: Path) -> None:
    """Put the weights into the adapter that `model` has."""
    import torch
    from safetensors.torch import load_file

    weights, saved = _trainable(model), load_file(folder / _ADAPTER)
    assert weights.keys() == saved.keys(), "the same training has the same adapter"
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved[name])


def load_optimizer(optimizer: Any, scheduler: Any, folder: Path) -> None:
    """Put moments, step counts, rates and the place in the schedule back."""
    from safetensors.torch import load_file

    state = read_state(folder)
    moments: dict[int, dict[str, Any]] = {}
    for name, value in load_file(folder / _OPTIMIZER).items():
        index, part = name.split(".")
        moments.setdefault(int(index), {})[part] = value
    optimizer.load_state_dict({"state": moments, "param_groups": state["optimizer_groups"]})
    scheduler.load_state_dict(state["schedule"])


def rng_state() -> dict[str, Any]:
    """This process's random generators as JSON holds them; torch's bytes as hexadecimal."""
    import numpy as np
    import torch

    numpy_state: Any = np.random.get_state(legacy=True)
    name, words, *rest = numpy_state
    return {
        "python": random.getstate(),
        "numpy": [name, words.tolist(), *rest],
        "torch": _hex(torch.get_rng_state()),
        "cuda": _hex(torch.cuda.get_rng_state()) if torch.cuda.is_available() else None,
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Undo what was drawn since `rng_state` gave `state`."""
    import numpy as np
    import torch

    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(_unhex(state["torch"]))
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(_unhex(state["cuda"]))


def _trainable(model: Any) -> dict[str, Any]:
    return {
        name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad
    }


def _check_finite(weights: dict[str, Any], step: int) -> None:
    broken = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if broken:
        raise NumericalError(
            f"After step {step} the adapter holds values that are not finite, first in "
            f"{broken[0]}. Training stopped and nothing was saved. Lower the learning rate, or "
            "train in float32."
        )


def _hex(state: Any) -> str:
    return bytes(state.tolist()).hex()


def _unhex(text: str) -> Any:
    import torch

    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
