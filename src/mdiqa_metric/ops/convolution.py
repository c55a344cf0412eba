"""Convolutions of frozen networks: the gradient needs the weights and the signs of the outputs, not the inputs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .autograd import is_recorded, takes_function

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, relu: bool) -> Tensor:
    """`conv2d`, followed by ReLU if `relu`: (N, C, H, W) -> (N, D, H', W').

    With frozen weights it saves one byte per output for backward with ReLU, and nothing without, instead of the input.
    It can be differentiated any number of times.

    Args:
        x: maps (N, C, H, W).
        weight, bias: (D, C, K, K), and (D,) or None.
        stride, padding: the same for rows and columns; padding is by zeros.
        relu: whether ReLU follows.

    Example:
        >>> conv(torch.ones(1, 2, 4, 4), torch.ones(3, 2, 3, 3), None, stride=2, padding=1, relu=True)[0, 0]
        tensor([[ 8., 12.],
                [12., 18.]])
    """
    if takes_function(x) and not weight.requires_grad:
        return _FrozenConv.apply(x, weight, bias, stride, padding, relu)
    return _forward(x, weight, bias, stride, padding, relu)


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, relu: bool) -> Tensor:
    """`conv` by operations that autograd and torch.func can differentiate."""
    x = F.conv2d(x, weight, bias, stride, padding)
    return x.relu_() if relu else x


def add_relu(x: Tensor, y: Tensor) -> Tensor:
    """`relu(x + y)`, with one byte per output saved for backward; without gradients it overwrites x.

    x and y are of any one shape.

    Example:
        >>> add_relu(torch.tensor([1.0, -3.0]), torch.tensor([1.0, 1.0]))
        tensor([2., 0.])
    """
    if takes_function(x, y):
        return _AddReLU.apply(x, y)
    if not torch.is_grad_enabled() and not is_recorded(x, y) and x.shape == y.shape:
        return x.add_(y).relu_()
    return (x + y).relu()


class _FrozenConv(torch.autograd.Function):
    """`conv` whose backward keeps the weights and the signs of the outputs, not the input."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, relu: bool) -> Tensor:
        x = F.conv2d(x, weight, bias, stride, padding)
        return x.relu_() if relu else x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.stride, ctx.padding, relu = inputs
        ctx.size = x.shape[-2:]
        ctx.save_for_backward(weight, output.bool() if relu else None)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, positive = ctx.saved_tensors
        if positive is not None:
            gradient = _where(positive, gradient)
        with torch.autocast(gradient.device.type, enabled=False):
            adjoint = _adjoint_in_blocks if weight.shape[1] < 8 and gradient.device.type == "cpu" else _adjoint
            gradient = adjoint(gradient, weight.to(gradient.dtype), ctx.stride, ctx.padding, ctx.size)
        return gradient, None, None, None, None, None


class _AddReLU(torch.autograd.Function):
    """`add_relu` whose backward keeps only the signs of the outputs."""

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return (x + y).relu_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(output.bool())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (positive,) = ctx.saved_tensors
        gradient = _where(positive, gradient)
        return gradient, gradient


def _where(positive: Tensor, gradient: Tensor) -> Tensor:
    """`torch.where(positive, gradient, 0)`; on a CPU by integers: four times as fast, and infinity times 0 is 0."""
    if torch.is_grad_enabled() or gradient.device.type != "cpu":
        return torch.where(positive, gradient, 0)
    return (gradient.view(_INTEGERS[gradient.itemsize]) * positive).view(gradient.dtype)


def _adjoint(gradient: Tensor, weight: Tensor, stride: int, padding: int, size: tuple[int, int]) -> Tensor:
    """The gradient with respect to a convolution's input of height and width `size`."""
    if weight.shape[0] == stride == 1:  # on a CPU a transposed convolution of one channel is 20 times slower
        gradient = F.conv2d(gradient, weight.flip(2, 3).transpose(0, 1), None, 1, weight.shape[-1] - 1 - padding)
        return gradient.contiguous(memory_format=torch.channels_last) if gradient.device.type == "cpu" else gradient
    covered = [
        (out - 1) * stride + k - 2 * padding for out, k in zip(gradient.shape[-2:], weight.shape[-2:], strict=True)
    ]
    uncovered = [whole - part for whole, part in zip(size, covered, strict=True)]
    return F.conv_transpose2d(gradient, weight, None, stride, padding, uncovered)


def _adjoint_in_blocks(gradient: Tensor, weight: Tensor, stride: int, padding: int, size: tuple[int, int]) -> Tensor:
    """`_adjoint` for the few channels of an image, which would leave most of a vector register idle.

    Each block of input pixels is computed as extra channels of one convolution over the gradient. With
    i = block * q + r, input pixel i sees output o = block / stride * q + t through tap r + padding - stride * t.
    """
    block, kernel = max(stride, 2), weight.shape[-1]
    step = block // stride
    first, last = -((kernel - 1 - padding) // stride), (block - 1 + padding) // stride
    pixel, output = torch.arange(block, device=weight.device), torch.arange(first, last + 1, device=weight.device)
    tap = pixel[:, None] + padding - stride * output
    tap = torch.where((tap >= 0) & (tap < kernel), tap, kernel)  # the zero that `pad` appends after the last tap
    weight = F.pad(weight, (0, 1, 0, 1))[:, :, tap][..., tap]  # (D, C, pixel, output, pixel, output)
    weight = weight.permute(1, 2, 4, 0, 3, 5).flatten(0, 2)
    blocks = [-(-whole // block) for whole in size]
    after = [(n - 1) * step + last + 1 - out for n, out in zip(blocks, gradient.shape[-2:], strict=True)]
    gradient = F.conv2d(F.pad(gradient, (-first, after[1], -first, after[0])), weight, None, step)
    return F.pixel_shuffle(gradient, block)[..., : size[0], : size[1]]
