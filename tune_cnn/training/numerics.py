"""How a GPU computes: with or without TF32, and the same each time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def numerics(device: torch.device, precision: str) -> Iterator[None]:
    """Set PyTorch's flags of the whole process for a training on a GPU, and restore them; for a CPU, there are none.

    Kernels are deterministic: cuDNN's by its flag, cuBLAS's by a fixed workspace, which it chooses at its first call
    (https://docs.nvidia.com/cuda/cublas/#results-reproducibility).

    Args:
        device: Of the training.
        precision: As in `Settings`. In fp32, PyTorch's default, convolutions use TF32 and matrix products do not.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, precision == "tf32"
    cudnn = torch.backends.cudnn.flags(  # type: ignore[no-untyped-call]
        torch.backends.cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=precision != "ieee"
    )
    try:
        with cudnn:
            yield
    finally:
        matmul.allow_tf32 = before
