"""Where and how to compute: device, numerics, memory and `torch.compile`."""

import ctypes
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from tune_cnn.errors import ConfigError, SlowerWarning

# From glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def is_out_of_memory(error: Exception) -> bool:
    """Whether a GPU ran out of memory, in PyTorch or in cuBLAS or cuDNN, which also allocate on their own."""
    library_error = re.search(r"CU(BLAS|DNN)_STATUS_\w*ALLOC\w*_FAILED|CUDA error: out of memory", str(error))
    return isinstance(error, torch.OutOfMemoryError) or library_error is not None


def is_cuda_error(error: Exception) -> bool:
    """Whether the error makes the GPU unusable for this process: every later CUDA call raises it again."""
    return "CUDA error" in str(error)


def choose_device(name: torch.device | str | None) -> torch.device:
    """The device of this name, or the default one for None; raises a ConfigError if it cannot be used."""
    if name is None:
        return default_device()
    try:
        device = (made := torch.zeros(1, device=name)).device
        made.item()  # fails on the `meta` device
        if device.type == "cuda":
            torch.cuda.set_device(device)  # default of calls without a device, such as memory statistics
        return device
    except (RuntimeError, AssertionError, TypeError) as error:
        fault = str(error).partition("\n")[0].rstrip(".")
        raise ConfigError(
            "device", [f"device: {str(name)!r} cannot be used ({fault}); write cpu, or cuda for a GPU"]
        ) from error


@contextmanager
def numerics(device: torch.device, precision: str) -> Iterator[None]:
    """Set PyTorch's process-wide flags for training on a GPU, and restore them afterwards; on a CPU, change nothing.

    Kernels are deterministic: cuDNN's by its flag, cuBLAS's by a fixed workspace, which it chooses at its first call
    (https://docs.nvidia.com/cuda/cublas/#results-reproducibility). `precision` is that of `Settings`; in fp32, as by
    default in PyTorch, convolutions use TF32 and matrix products do not.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    flags: list[tuple[Any, str, Any]] = [(cudnn, "benchmark", False), (cudnn, "deterministic", True)]
    flags += [(matmul, "allow_tf32", precision == "tf32"), (cudnn, "allow_tf32", precision != "ieee")]
    # Since PyTorch 2.9, setting allow_tf32 also sets fp32_precision, and torch.compile needs both to agree; but reading
    # the one is an error if the user has set the other.
    parts = (matmul, cudnn.conv, cudnn.rnn) if hasattr(cudnn, "conv") else ()
    newer = [(part, "fp32_precision", "ieee") for part in parts]
    with ExitStack() as stack:
        for part, name, _ in [*newer, *flags]:  # restored in reverse order
            with suppress(RuntimeError):
                stack.callback(setattr, part, name, getattr(part, name))
        for part, name, value in [*flags, *(newer if precision == "ieee" else ())]:
            setattr(part, name, value)
        yield


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it to the system, for the rest of this process.

    By default, glibc returns the pages of large tensors, and the system maps and clears new ones in each step, which
    took a tenth (fp32) to a third (bf16) of a step on CPUs. The process keeps its peak size. Without glibc, nothing
    changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model, compiled at its first call; if that fails, it runs uncompiled, with a warning."""
    forward: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False)

    def call(images: Tensor) -> Tensor:
        nonlocal forward
        try:
            return forward(images)
        except (torch._dynamo.exc.TorchDynamoException, ImportError) as error:
            fault = str(error).strip().partition("\n")[0]
            message = f"compile: not possible here, so the network runs as it is ({fault})"
            warnings.warn(message, SlowerWarning, stacklevel=2)
            forward = model
            return model(images)  # type: ignore[no-any-return]

    return call
