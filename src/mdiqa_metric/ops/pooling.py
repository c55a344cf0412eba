"""Pooling that saves at most its inputs for backward; a comparison of the same map saves those anyway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .autograd import takes_function

# Under L2 pooling's root: the authors' value.
EPSILON = 1e-12


def max_pool(x: Tensor, size: int, stride: int, ceil_mode: bool = False) -> Tensor:
    """`max_pool2d`: (N, C, H, W) -> (N, C, H', W'). Backward finds the maxima again instead of saving 64-bit indices.

    Example:
        >>> max_pool(torch.arange(9.0).view(1, 1, 3, 3), size=2, stride=2, ceil_mode=True)
        tensor([[[[4., 5.],
                  [7., 8.]]]])
    """
    if takes_function(x):
        return _MaxPool.apply(x, size, stride, ceil_mode)
    return F.max_pool2d(x, size, stride, ceil_mode=ceil_mode)


def l2_pool(x: Tensor, window: Tensor, stride: int = 2) -> Tensor:
    """`sqrt(sum of window x^2 + 1e-12)` over a window (3, 3), with padding 1 and a stride of 1 or 2.

    (N, C, H, W) -> (N, C, H, W), or half of that, rounded up, from 0 up. Computed in at least float32, since squares
    overflow float16, and returned in the dtype of x. From "Geodesics of learned representations" (Hénaff and
    Simoncelli, ICLR 2016), as DISTS and TReS use it.

    Example:
        >>> l2_pool(torch.full((1, 1, 3, 3), 2.0), torch.full((3, 3), 1 / 4))
        tensor([[[[2., 2.],
                  [2., 2.]]]])
    """
    return _L2Pool.apply(x, window, stride) if takes_function(x) else _l2_pool(x, window, stride)


def blur_pool(x: Tensor, window: Tensor) -> Tensor:
    """`x` blurred with `window` (3, 3), at every second position, after padding by two reflected pixels per side.

    (N, C, H, W) -> (N, C, (H + 1) // 2 + 1, (W + 1) // 2 + 1); H and W are at least 3. From "Making convolutional
    networks shift-invariant again" (Zhang, ICML 2019), with the wider padding of ST-LPIPS.

    Example:
        >>> blur_pool(torch.ones(1, 1, 4, 6), torch.full((3, 3), 1 / 9)).shape
        torch.Size([1, 1, 3, 4])
    """
    return _BlurPool.apply(x, window) if takes_function(x) else _blur_pool(x, window)


def gated_pool(x: Tensor, gate: Tensor, size: tuple[int, int]) -> Tensor:
    """`adaptive_avg_pool2d(gelu(x) * gate, size)` of x (N, C, H, W) and a gate (N, 1, H, W): (N, C, *size).

    Saves only x and the gate for backward, and recomputes the GELU there.

    Example:
        >>> gated_pool(torch.ones(1, 8, 4, 4), torch.zeros(1, 1, 4, 4), (2, 1)).shape
        torch.Size([1, 8, 2, 1])
    """
    if takes_function(x, gate):
        return _GatedPool.apply(x, gate, size)
    return F.adaptive_avg_pool2d(F.gelu(x) * gate, size)


def reduced_pool(x: Tensor, weight: Tensor, bias: Tensor, size: tuple[int, int]) -> Tensor:
    """`adaptive_avg_pool2d(gelu(conv2d(x, weight, bias)), size)` of x (N, C, H, W): (N, D, *size).

    With frozen weights the map (N, D, H, W), which is large if D is much larger than C, is not saved for backward but
    computed again there.

    Args:
        x: maps (N, C, H, W).
        weight, bias: (D, C, 1, 1) and (D,).
        size: height and width of the result.

    Example:
        >>> reduced_pool(torch.ones(1, 2, 4, 4), torch.ones(8, 2, 1, 1), torch.zeros(8), (2, 1)).shape
        torch.Size([1, 8, 2, 1])
    """
    if takes_function(x) and not weight.requires_grad:
        return _ReducedPool.apply(x, weight, bias, size)
    return F.adaptive_avg_pool2d(F.gelu(F.conv2d(x, weight, bias)), size)


def _single(x: Tensor) -> Tensor:
    """x in at least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _l2_pool(x: Tensor, window: Tensor, stride: int) -> Tensor:
    """`l2_pool` by plain operations."""
    squares = _single(x).square()
    return (_weighted_sum(squares, window, 1, stride) + EPSILON).sqrt().to(x.dtype)


def _blur_pool(x: Tensor, window: Tensor) -> Tensor:
    """`blur_pool` by plain operations."""
    return _weighted_sum(F.pad(x, (2, 2, 2, 2), mode="reflect"), window, padding=0)


def _weighted_sum(x: Tensor, window: Tensor, padding: int, stride: int = 2) -> Tensor:
    """Each channel convolved with the window (3, 3)."""
    channels = x.shape[1]
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x, window.to(x.dtype).expand(channels, 1, 3, 3), None, stride, padding, groups=channels)


def _spread(gradient: Tensor, window: Tensor, padding: int, size: Sequence[int], stride: int = 2) -> Tensor:
    """The gradient of `_weighted_sum` with respect to its input, which has height and width `size`."""
    channels = gradient.shape[1]
    covered = [stride * (out - 1) + 3 - 2 * padding for out in gradient.shape[-2:]]
    uncovered = [whole - part for whole, part in zip(size, covered, strict=True)]
    weight = window.to(gradient.dtype).expand(channels, 1, 3, 3)
    with torch.autocast(gradient.device.type, enabled=False):
        return F.conv_transpose2d(gradient, weight, None, stride, padding, uncovered, channels)


class _GatedPool(torch.autograd.Function):
    """`gated_pool` whose backward keeps only x and the gate."""

    @staticmethod
    def forward(x: Tensor, gate: Tensor, size: tuple[int, int]) -> Tensor:
        return F.adaptive_avg_pool2d(F.gelu(x).mul_(gate), size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, gate, _ = inputs
        ctx.save_for_backward(x, gate)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gate = ctx.saved_tensors
        spread = _spread_mean(gradient, x)
        for_gate = (F.gelu(x) * spread).sum(1, keepdim=True)
        return torch.ops.aten.gelu_backward(spread * gate, x), for_gate, None


class _ReducedPool(torch.autograd.Function):
    """`reduced_pool` whose backward keeps only x and the weights."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, size: tuple[int, int]) -> Tensor:
        return F.adaptive_avg_pool2d(F.gelu(F.conv2d(x, weight, bias)), size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        x, weight, bias = ctx.saved_tensors
        weight = weight.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            map_ = F.conv2d(x, weight, bias.to(x.dtype))
            local = torch.ops.aten.gelu_backward(_spread_mean(gradient.to(x.dtype), map_), map_)
            return F.conv_transpose2d(local, weight), None, None, None


def _spread_mean(gradient: Tensor, x: Tensor) -> Tensor:
    """The gradient of `adaptive_avg_pool2d` with respect to its input x."""
    (height, width), (rows, columns) = gradient.shape[-2:], x.shape[-2:]
    if rows % height == columns % width == 0:  # copies each value to its block in the layout of x: far faster on a CPU
        spread = torch.empty_like(x)
        blocks = spread.unflatten(3, (width, columns // width)).unflatten(2, (height, rows // height))
        blocks.copy_(gradient[:, :, :, None, :, None] * (height * width / (rows * columns)))
        return spread
    return torch.ops.aten._adaptive_avg_pool2d_backward(gradient, x)


class _MaxPool(torch.autograd.Function):
    """`max_pool` whose backward keeps only x."""

    @staticmethod
    def forward(x: Tensor, size: int, stride: int, ceil_mode: bool) -> Tensor:
        return F.max_pool2d(x, size, stride, ceil_mode=ceil_mode)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.size, ctx.stride, ctx.ceil_mode = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x = ctx.saved_tensors[0].detach()
        size, stride = [ctx.size] * 2, [ctx.stride] * 2
        _, indices = F.max_pool2d(x, size, stride, ceil_mode=ctx.ceil_mode, return_indices=True)
        gradient = torch.ops.aten.max_pool2d_with_indices_backward(
            gradient, x, size, stride, [0, 0], [1, 1], ctx.ceil_mode, indices
        )
        return gradient, None, None, None


class _L2Pool(torch.autograd.Function):
    """`l2_pool` whose backward keeps only its input and output."""

    @staticmethod
    def forward(x: Tensor, window: Tensor, stride: int) -> Tensor:
        return _l2_pool(x, window, stride)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, window, ctx.stride = inputs
        ctx.save_for_backward(x, window, output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        x, window, output = ctx.saved_tensors
        share = _single(gradient) / _single(output).clamp_min(EPSILON**0.5)
        return _spread(share, window, 1, x.shape[-2:], ctx.stride).mul_(x).to(x.dtype), None, None


class _BlurPool(torch.autograd.Function):
    """`blur_pool` whose backward keeps only the window."""

    @staticmethod
    def forward(x: Tensor, window: Tensor) -> Tensor:
        return _blur_pool(x, window)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, window = inputs
        ctx.size, ctx.dtype = x.shape[-2:], x.dtype
        ctx.save_for_backward(window)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        (window,) = ctx.saved_tensors
        padded = [size + 4 for size in ctx.size]
        gradient = _spread(_single(gradient), window, 0, padded)  # a CPU takes ten times as long in bfloat16
        stand_in = gradient[..., 2:-2, 2:-2]  # only its shape and layout are read
        return torch.ops.aten.reflection_pad2d_backward(gradient, stand_in, [2, 2, 2, 2]).to(ctx.dtype), None
