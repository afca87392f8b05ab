"""Has accelerate take the processes of a CPU for those of GPUs, which alone it lets hold shards.

On the path of training processes alone: Python imports this module when it starts.
"""

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType


def _backend(self: PartialState, *_: object, **__: object) -> tuple[str, DistributedType]:
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    return "gloo", DistributedType.MULTI_GPU


def _set_device(self: PartialState) -> None:
    self.device = torch.device("cpu")


PartialState._prepare_backend = _backend
PartialState.set_device = _set_device
