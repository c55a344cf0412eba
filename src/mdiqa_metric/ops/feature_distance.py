"""Comparisons of two images' feature maps, in blocks that fit a processor's cache.

Written as plain operations, a comparison allocates five to ten temporaries of the maps' size, and autograd keeps most
of them. Here forward and backward go through the maps block by block and keep only the maps. All computation is in at
least float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .autograd import is_recorded, is_recording_graph, takes_function

# Values per block: a megabyte of float32.
BLOCK = 1 << 18
# Added to a feature vector's norm: the authors' value. A larger one would change the shortest vectors of ST-LPIPS.
NORM_EPSILON = 1e-10


def unit_distance(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """`mean over h, w of sum over c of weight (x / |x| - y / |y|)^2`, LPIPS's distance (Zhang et al., CVPR 2018).

    A zero vector is left as it is. Computed in at least float32; equal maps give exactly 0.

    Args:
        x, y: maps (N, C, H, W).
        weight: (C,).

    Returns:
        (N,), in [0, 4 max(weight)] for weights from 0 up.

    Example:
        >>> x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).view(2, 1, 2, 1, 1)
        >>> unit_distance(x, y, torch.ones(2))
        tensor([2.])
    """
    x, y = _rows(x), _rows(y)
    if takes_function(x, y) and not weight.requires_grad:
        return _UnitDistance.apply(x, y, weight)
    if is_recorded(x, y, weight) or is_recording_graph():
        return _unit_distance(x, y, weight).mean(1)
    return _mean_unit_distance(x, y, weight)


class LayerDistances(NamedTuple):
    """LPIPS's distance of N pairs of images, taken apart.

    Attributes:
        map: the distance at each pixel (N, 1, H, W): the sum of the layers' maps, each enlarged bilinearly. Enlarging
            changes means a little, so the map's mean is only about the score.
        layers: what each of the L layers adds to the score (N, L); a row sums to it.
    """

    map: Tensor
    layers: Tensor


def layer_distances(pairs: Iterable[tuple[Tensor, Tensor, Tensor]], size: tuple[int, int]) -> LayerDistances:
    """The `unit_distance` of each layer's x, y and weight, in space and by layer, for images of that height and width.

    Example:
        >>> x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).view(2, 1, 2, 1, 1)
        >>> found = layer_distances([(x, y, torch.ones(2))], (2, 3))
        >>> found.map.shape, found.layers
        (torch.Size([1, 1, 2, 3]), tensor([[2.]]))
    """
    maps = [_unit_distance(_rows(x), _rows(y), weight).view(len(x), 1, *x.shape[-2:]) for x, y, weight in pairs]
    enlarged = torch.stack([F.interpolate(each, size, mode="bilinear") for each in maps]).sum(0)
    return LayerDistances(enlarged, torch.stack([each.mean((1, 2, 3)) for each in maps], 1))


def moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`mean(x), mean(y), var(x) + var(y), var(x - y)` over space, with the variance of a population.

    Computed in at least float32; equal maps give exactly 0 for the last.

    Args:
        x, y: maps (N, C, H, W).

    Returns:
        Four (N, C), the last two from 0 up.

    Example:
        >>> x, y = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2), torch.tensor([2.0, 2.0]).view(1, 1, 1, 2)
        >>> [value.item() for value in moments(x, y)]
        [2.0, 2.0, 1.0, 1.0]
    """
    x, y = _rows(x), _rows(y)
    if takes_function(x, y):
        return _Moments.apply(x, y)
    if is_recorded(x, y) or is_recording_graph():
        return _moments(x, y)
    return _block_moments(x, y)


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H * W, C): a view of a channels_last or contiguous map."""
    return x.flatten(2).mT


def _blocks(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of the samples and rows of x (N, P, C); off the CPU only one, since kernel launches cost more there."""
    count, rows, channels = x.shape
    if x.device.type != "cpu":
        yield slice(None), slice(None)
        return
    samples, step = max(1, BLOCK // (rows * channels)), max(1, BLOCK // channels)
    for sample in range(0, count, samples):
        for row in range(0, rows, step):
            yield slice(sample, sample + samples), slice(row, row + step)


def _single(x: Tensor) -> Tensor:
    """x in at least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _inverse_norm(x: Tensor) -> Tensor:
    """`1 / (|x| + epsilon)` of vectors (..., C), (..., 1); 0 for a vector of zeros."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.sign() / (norm + NORM_EPSILON)  # a vector of zeros has no direction: no NaN, no gradient


def _unit_difference(x: Tensor, y: Tensor, inverse: Tensor) -> Tensor:
    """`x / |x| - y / |y|`, given the inverse norm of x."""
    return x * inverse - y * _inverse_norm(y)  # a fused addcmul would give equal vectors a difference


def _unit_distance(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Distance of each row: x and y (N, P, C) -> (N, P)."""
    x, y = _single(x), _single(y)
    return (_unit_difference(x, y, _inverse_norm(x)).square() * weight).sum(-1)


def _unit_distance_gradient(x: Tensor, y: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Gradient of each row's distance with respect to x (N, P, C), times `scale` (N, 1, 1)."""
    x, y = _single(x), _single(y)
    inverse = _inverse_norm(x)
    outwards = _unit_difference(x, y, inverse).mul_(2 * weight)
    along = (outwards * x).sum(-1, keepdim=True) * inverse.square()
    return torch.addcmul(outwards, x, along, value=-1).mul_(inverse * scale)


def _moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`moments` of rows (N, P, C)."""
    x, y = _single(x), _single(y)
    mean_x, mean_y = x.mean(1), y.mean(1)
    x, y = x - mean_x[:, None], y - mean_y[:, None]
    return mean_x, mean_y, (x.square() + y.square()).mean(1), (x - y).square().mean(1)


def _fill(function: Callable[..., Tensor], x: Tensor, y: Tensor, *samples: Tensor) -> Tensor:
    """`function(x, y, *samples)` like x (N, P, C), in blocks on a CPU unless differentiated; `samples`: (N, ...)."""
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return function(x, y, *samples).to(x.dtype)
    filled = torch.empty_like(x)
    for block in _blocks(x):
        filled[block] = function(x[block], y[block], *(sample[block[0]] for sample in samples))
    return filled


def _mean_unit_distance(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """`_unit_distance` averaged over the rows, block by block."""
    total = x.new_zeros(x.shape[0], dtype=torch.promote_types(x.dtype, torch.float32))
    for block in _blocks(x):
        total[block[0]] += _unit_distance(x[block], y[block], weight).sum(1)
    return total / x.shape[1]


def _block_moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`_moments`, block by block."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    mean_x, mean_y = x.mean(1, dtype=dtype), y.mean(1, dtype=dtype)
    both, difference = torch.zeros_like(mean_x), torch.zeros_like(mean_x)
    for block in _blocks(x):
        samples = block[0]
        a, b = x[block] - mean_x[samples, None], y[block] - mean_y[samples, None]
        difference[samples] += (a - b).square_().sum(1)
        both[samples] += a.square_().add_(b.square_()).sum(1)
    return mean_x, mean_y, both / x.shape[1], difference / x.shape[1]


class _UnitDistance(torch.autograd.Function):
    """`unit_distance` whose backward keeps only its inputs."""

    @staticmethod
    def forward(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return _mean_unit_distance(x, y, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight = ctx.saved_tensors
        gradient = gradient[:, None, None] / x.shape[1]

        def rise(x: Tensor, y: Tensor, gradient: Tensor) -> Tensor:
            return _unit_distance_gradient(x, y, weight, gradient)

        need_x, need_y, _ = ctx.needs_input_grad
        return _fill(rise, x, y, gradient) if need_x else None, _fill(rise, y, x, gradient) if need_y else None, None


class _Moments(torch.autograd.Function):
    """`moments` whose backward keeps only its inputs and the means."""

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _block_moments(x, y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs, *output[:2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, y, mean_x, mean_y = (saved if saved.ndim == 3 else saved[:, None] for saved in ctx.saved_tensors)
        for_x, for_y, both, difference = (gradient[:, None] / x.shape[1] for gradient in gradients)
        own, other = 2 * (both + difference), 2 * difference

        def rise(x: Tensor, y: Tensor, mean_x: Tensor, mean_y: Tensor, mean: Tensor, *gradients: Tensor) -> Tensor:
            own, other = gradients
            return torch.addcmul(mean, x - mean_x, own).addcmul_(y - mean_y, other, value=-1)

        need_x, need_y = ctx.needs_input_grad
        return (
            _fill(rise, x, y, mean_x, mean_y, for_x, own, other) if need_x else None,
            _fill(rise, y, x, mean_y, mean_x, for_y, own, other) if need_y else None,
        )
