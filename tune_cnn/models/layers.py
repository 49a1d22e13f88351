"""Layers that equal PyTorch's up to rounding, `repr` and `state_dict` too; faster on CPUs, deterministic on GPUs."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# PyTorch multiplies fp32 matrices with MKL, which takes about twice as long as oneDNN at a batch of 50 on an AMD EPYC.
_onednn_linear: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
_onednn_conv: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
_HAS_ONEDNN = torch.backends.mkldnn.is_available() and None not in (_onednn_linear, _onednn_conv)  # type: ignore[no-untyped-call]
_LARGE = 1024  # input features; with fewer, oneDNN makes no difference


class ReLU(nn.ReLU):
    """ReLU in place, which saves memory and a pass over it."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.relu_(input)


class Conv2d(nn.Conv2d):
    """A convolution with an optional fused ReLU, for evaluation."""

    def forward(self, input: Tensor, rectify: bool = False) -> Tensor:
        """Convolve, and with `rectify` apply ReLU to the result; only if `can_rectify` allows it."""
        if not rectify:
            return super().forward(input)
        dtype = torch.bfloat16
        bias = None if self.bias is None else self.bias.to(dtype)
        places = [self.padding, self.stride, self.dilation]
        try:
            return _onednn_conv(  # type: ignore[no-any-return]
                input.to(dtype), self.weight.to(dtype), bias, *places, self.groups, "relu", [], ""
            )
        except (RuntimeError, TypeError):  # the operator is not part of PyTorch's public interface
            return super().forward(input).relu_()


def can_rectify(images: Tensor) -> bool:
    """Whether a `Conv2d` of images (B, C, H, W) can fuse its ReLU.

    It can in evaluation on CPUs in bf16: 7 to 9 % more images per second; in fp32, fusing makes no difference.
    """
    # `torch.compile`, and a trace such as that of TensorBoard's `add_graph`, record the operators.
    is_recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[no-untyped-call]
    if not _HAS_ONEDNN or torch.is_grad_enabled() or is_recorded:
        return False
    if images.device.type != "cpu" or images.dtype != torch.float32 or images.dim() != 4:
        return False
    is_bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return is_bf16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """Adaptive average pooling; on GPUs as two matrix products, since PyTorch's backward pass adds in random order."""

    def forward(self, input: Tensor) -> Tensor:
        return pooled_by_products(input, self.output_size) if input.is_cuda else super().forward(input)  # type: ignore[no-any-return]


class AdaptiveMaxPool2d(nn.AdaptiveMaxPool2d):
    """Adaptive max-pooling to 1x1; on GPUs by `max`, since PyTorch's backward pass adds in random order."""

    def __init__(self) -> None:
        super().__init__((1, 1))

    def forward(self, input: Tensor) -> Tensor:
        if input.is_cuda:
            return input.flatten(2).max(dim=2).values[..., None, None]
        return super().forward(input)  # type: ignore[no-any-return]


def pooled_by_products(images: Tensor, size: Any) -> Tensor:
    """Average images (B, C, H, W) to `size`, which is rows and columns, as `nn.AdaptiveAvgPool2d` does."""
    rows, columns = (
        nn.functional.adaptive_avg_pool1d(torch.eye(length, dtype=images.dtype, device=images.device)[None], parts)[0]
        for length, parts in zip(images.shape[-2:], size, strict=True)
    )  # (H, rows), (W, columns): weight of each pixel in each part
    return rows.T @ images @ columns


class Linear(nn.Linear):
    """Linear layer that uses oneDNN if it is large, in fp32 on CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        if self.in_features >= _LARGE and input.dim() == 2 and _is_fp32_on_cpu(input):
            return _OneDnnLinear.apply(input, self.weight, self.bias)  # type: ignore[no-any-return, no-untyped-call]
        return super().forward(input)


def flatten(images: Tensor) -> Tensor:
    """Flatten images (B, C, H, W) to rows (B, C * H * W); faster than PyTorch for channels-last images on CPUs."""
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    if last and _is_fp32_on_cpu(images):
        return _FlattenChannelsLast.apply(images)  # type: ignore[no-any-return, no-untyped-call]
    return images.flatten(1)


def _is_fp32_on_cpu(images: Tensor) -> bool:
    on_cpu = images.device.type == "cpu" and images.dtype == torch.float32
    return on_cpu and _HAS_ONEDNN and not torch.is_autocast_enabled("cpu") and not torch.jit.is_tracing()  # type: ignore[no-untyped-call]


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight.t()) if of_rows else None,
            _product(gradient.t(), rows.t()) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """`a @ b.T + bias`."""
    try:
        return _onednn_linear(a, b, bias, "none", [], "")  # type: ignore[no-any-return]
    except (RuntimeError, TypeError):  # the operator is not part of PyTorch's public interface
        return nn.functional.linear(a, b, bias)


class _FlattenChannelsLast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        count, _, height, width = ctx.shape = images.shape
        return _transposed(images.permute(0, 2, 3, 1).reshape(count, -1), height * width)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        count, channels, height, width = ctx.shape
        rows = _transposed(gradient.contiguous(), channels)
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


def _transposed(rows: Tensor, first: int) -> Tensor:
    """Transpose each row, seen as a matrix (first, size / first).

    A channel shuffle of 1x1 images does exactly that, and its kernel is up to five times as fast as a copy.
    """
    count, size = rows.shape
    return nn.functional.channel_shuffle(rows.as_strided((count, size, 1, 1), (size, 1, size, size)), first).view(
        count, size
    )
