"""Memory that runs out is a lost engine, whoever could not have it."""

import psutil
import pytest
import torch

from csr.errors import DataError, EngineLost, ModelError
from csr.memory import give_back_freed_memory, memory_errors, ran_out_of_memory
from csr.samplers._vllm_policy import _failure


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("The size of tensor a (3) must match"), False),
        (ValueError("CUDA error: out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert ran_out_of_memory(error) is expected


def test_torch_on_a_cpu_runs_out_as_told() -> None:
    with (
        pytest.raises(EngineLost, match=r"while sampling \(.*can't allocate.* Lower batch_size\."),
        memory_errors("sampling", "Lower batch_size."),
    ):
        torch.empty(1 << 60, dtype=torch.uint8)


def test_other_errors_pass() -> None:
    with pytest.raises(DataError), memory_errors("sampling", "Lower batch_size."):
        raise DataError("not an image")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), EngineLost),
        (RuntimeError("Engine core died"), EngineLost),
        (type("EngineDeadError", (Exception,), {})("see above"), EngineLost),
        (ValueError("the prompt is longer than the model's context"), ModelError),
        (AssertionError("ours"), ModelError),
    ],
)
def test_vllms_failures_are_told_apart(error: Exception, kind: type[Exception]) -> None:
    told = _failure(error)
    assert type(told) is kind
    assert str(error) in str(told)


def test_what_is_freed_in_small_pieces_goes_back_to_the_machine() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    # Pieces below glibc's threshold for a mapping of their own; the last one holds the heap's end.
    pieces = [bytearray(60_000) for _ in range(4_000)]
    held = [bytearray(1_000) for _ in range(100)]
    assert process.memory_info().rss > before + 200e6
    del pieces
    give_back_freed_memory()
    assert process.memory_info().rss < before + 60e6
    assert len(held) == 100
