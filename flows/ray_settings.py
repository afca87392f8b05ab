"""Where a recipe says that a Ray cluster samples."""

from __future__ import annotations

from pydantic import Field

from csr.config import ComponentConfig


class Config(ComponentConfig):
    """Workers of a Ray cluster, each a process with engines of its own."""

    num_workers: int = Field(ge=1, le=4096)
    """Shards that are sampled at once."""
    gpus_per_worker: float = Field(default=1.0, ge=0)
    """GPUs that Ray sets aside for each, and shows to it alone: the sampler's
    tensor_parallel_size, where that is above 1."""
    cpus_per_worker: float = Field(default=1.0, ge=0)
    """CPU cores that Ray sets aside for each."""
    address: str = Field(default="auto", pattern=r"^(auto|local|[^\s:/]+:\d{1,5})$")
    """`auto`: the cluster that this machine belongs to (RAY_ADDRESS, or `ray start` here); `local`:
    one of this machine alone, for the run; or host:port of a cluster's head."""
