"""What the GPUs can do by their datasheets, and how much of it the work gets.

Sources, all for dense matrices (NVIDIA's headline figures are twice that, with sparsity):

- H100 SXM5 80 GB, H200 SXM 141 GB: NVIDIA's datasheets. 16 bits 989 TFLOP/s; float32 67.
- A100 SXM4 80 GB: NVIDIA's datasheet. 312 and 19.5.
- L40S: NVIDIA's datasheet. 362 and 91.6.
- RTX 4090: NVIDIA's Ada white paper, 16 bits with float32 accumulation. 165 and 82.6.
- CPU: no datasheet, but what two cores of 2.5 GHz with AVX2 (two fused multiply-adds of eight
  numbers a cycle) and two channels of DDR4-3200 are built for: 160 GFLOP/s, 51.2 GB/s.

float32 is that of the CUDA cores: torch uses TF32 only where it is told to, which nobody does here.
A GB is 10^9 bytes, and drivers report some 7 % more than datasheets do: that is left as a reserve.
"""

from __future__ import annotations

from dataclasses import dataclass

from csr.errors import ConfigError
from flows.validation import suggestion

GB = 1e9
TERA = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU, or a small machine without one."""

    name: str
    memory_bytes: float
    bytes_per_second: float
    """From memory, by the datasheet."""
    flops_16_bit: float
    """A second, in bfloat16 or float16, by the datasheet."""
    flops_32_bit: float
    """A second, in float32, by the datasheet."""
    engine_start_seconds: float = 120.0
    """To compile, warm up and capture graphs, beside reading the weights. Not measured: assumed."""
    measured_bytes_per_second: float | None = None
    measured_flops_16_bit: float | None = None
    is_cpu: bool = False

    def flops(self, dtype: str) -> float:
        """A second, in a type as torch names it."""
        return self.flops_32_bit if dtype == "float32" else self.flops_16_bit


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """Shares of a datasheet's figures that the work gets. Usual values, not measured here."""

    decode_bandwidth: float = 0.70
    prefill_flops: float = 0.50
    similarity_flops: float = 0.40
    training_flops: float = 0.40
    """On one GPU."""
    parallel_training_flops: float = 0.35
    """On each of several GPUs."""


EFFICIENCY = Efficiency()

DEVICES = {
    device.name: device
    for device in (
        Device(
            name="H100",
            memory_bytes=80 * GB,
            bytes_per_second=3.35 * TERA,
            flops_16_bit=989 * TERA,
            flops_32_bit=67 * TERA,
        ),
        Device(
            name="H200",
            memory_bytes=141 * GB,
            bytes_per_second=4.8 * TERA,
            flops_16_bit=989 * TERA,
            flops_32_bit=67 * TERA,
            measured_bytes_per_second=4.3 * TERA,  # on one card, as is the next
            measured_flops_16_bit=788 * TERA,
        ),
        Device(
            name="A100",
            memory_bytes=80 * GB,
            bytes_per_second=2.039 * TERA,
            flops_16_bit=312 * TERA,
            flops_32_bit=19.5 * TERA,
        ),
        Device(
            name="L40S",
            memory_bytes=48 * GB,
            bytes_per_second=0.864 * TERA,
            flops_16_bit=362 * TERA,
            flops_32_bit=91.6 * TERA,
        ),
        Device(
            name="RTX4090",
            memory_bytes=24 * GB,
            bytes_per_second=1.008 * TERA,
            flops_16_bit=165 * TERA,
            flops_32_bit=82.6 * TERA,
        ),
        Device(
            name="CPU",
            memory_bytes=16 * GB,
            bytes_per_second=51.2 * GB,
            flops_16_bit=0.16 * TERA,  # bfloat16 is computed as float32 there
            flops_32_bit=0.16 * TERA,
            engine_start_seconds=20.0,
            is_cpu=True,
        ),
    )
}


def device_named(name: str) -> Device:
    """The device whose name this is, in any case and spacing. ConfigError lists the known ones."""
    for device in DEVICES.values():
        if _plain(device.name) == _plain(name):
            return device
    raise ConfigError(
        f"There is no GPU {name!r} in the table.{suggestion(name.upper(), list(DEVICES))} "
        f"Known: {', '.join(DEVICES)}."
    )


def _plain(name: str) -> str:
    return name.casefold().replace(" ", "").replace("-", "").replace("_", "")
