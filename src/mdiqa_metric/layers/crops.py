"""Crops at the places that published test procedures use, and the mean of a score over them.

HyperIQA, TReS, AHIQ, MANIQA and IQT are scored on a grid of crops; CNNIQA and WaDIQaM on patches that tile the image.
Places are plain (top, left) pairs, so that an image and its reference can be cropped at the same ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.autograd import takes_function
from .checkpointing import maybe_checkpoint

Place = tuple[int, int]


class PatchScores(NamedTuple):
    """What `explain` returns for a metric that pools patches by weights which it predicts.

    Attributes:
        map: the patches' scores (N, 1, rows, columns).
        weights: what each counts (N, 1, rows, columns), above 0. The score is the mean of `map` by these weights.
    """

    map: Tensor
    weights: Tensor

    def mean(self) -> Tensor:
        """The weighted mean (N,).

        Example:
            >>> PatchScores(torch.tensor([[[[1.0, 4.0]]]]), torch.tensor([[[[2.0, 1.0]]]])).mean()
            tensor([2.])
        """
        return (self.map * self.weights).sum((1, 2, 3)) / self.weights.sum((1, 2, 3))


def grid_places(
    height: int, width: int, size: int, count: int, generator: torch.Generator | None = None
) -> list[Place]:
    """Top-left corners of `count` square crops of an image: the first of an even grid, row by row.

    The grid has ceil(sqrt(count)) rows and columns, `(side - size) // floor(sqrt(count))` pixels apart, as the field's
    re-implementations of HyperIQA, TReS, AHIQ and IQT place them.

    Args:
        height, width: of the image.
        size: side of the crops.
        count: how many crops.
        generator: if given, draws the places at random instead, as the authors' own programs do.

    Raises:
        ValueError: the image is smaller than a crop, or `count` is below 1.

    Example:
        >>> grid_places(256, 320, 224, 4)
        [(0, 0), (0, 48), (16, 0), (16, 48)]
    """
    _check_size(height, width, size)
    if count < 1:
        raise ValueError(f"Crops are taken at 1 place or more, got {count}: ask for at least one.")
    if generator is not None:
        rows = torch.randint(height - size + 1, (count,), generator=generator).tolist()
        columns = torch.randint(width - size + 1, (count,), generator=generator).tolist()
        return list(zip(rows, columns, strict=True))
    side, steps = math.ceil(math.sqrt(count)), math.isqrt(count)
    down, right = (height - size) // steps, (width - size) // steps
    return [(row * down, column * right) for row in range(side) for column in range(side)][:count]


def enlarge(image: Tensor, size: int) -> Tensor:
    """Images (N, C, H, W) that are no larger than a crop, brought to a shorter side of `size + 1`; others as they are.

    Bilinearly and by exactly `(size + 1) / min(H, W)`, as the field's re-implementations of HyperIQA, TReS, AHIQ and
    IQT do it: where the longer side is rounded down, a part of a pixel there is left out.

    Example:
        >>> enlarge(torch.rand(1, 3, 128, 150), 255).shape
        torch.Size([1, 3, 256, 300])
    """
    shorter = min(image.shape[-2:])
    return F.interpolate(image, scale_factor=(size + 1) / shorter, mode="bilinear") if shorter <= size else image


def tile_places(height: int, width: int, size: int, stride: int, reach_end: bool = False) -> list[Place]:
    """Top-left corners of square crops every `stride` pixels, row by row.

    Args:
        height, width: of the image.
        size: side of the crops.
        stride: pixels between neighbors.
        reach_end: adds crops at the last row and column if the stride does not reach them.

    Raises:
        ValueError: the image is smaller than a crop, or `stride` is below 1.

    Example:
        >>> tile_places(64, 70, 32, 32)
        [(0, 0), (0, 32), (32, 0), (32, 32)]
        >>> tile_places(32, 70, 32, 32, reach_end=True)
        [(0, 0), (0, 32), (0, 38)]
    """
    _check_size(height, width, size)
    if stride < 1:
        raise ValueError(f"Crops are taken every 1 pixel or more, got a stride of {stride}: use a larger one.")
    sides = []
    for length in (height, width):
        starts = list(range(0, length - size + 1, stride))
        if reach_end and starts[-1] != length - size:
            starts.append(length - size)
        sides.append(starts)
    return [(top, left) for top in sides[0] for left in sides[1]]


def crop(image: Tensor, places: Sequence[Place], size: int) -> Tensor:
    """Square crops of images (N, C, H, W) at K places, inside the image: (N, K, C, size, size).

    Backward adds the crops' gradients up in one image; autograd would make an image a crop.

    Example:
        >>> crop(torch.zeros(2, 3, 64, 64), [(0, 0), (32, 32)], 32).shape
        torch.Size([2, 2, 3, 32, 32])
    """
    return _Crop.apply(image, places, size) if takes_function(image) else _crop(image, places, size)


def check_chunk(chunk: int) -> int:
    """How many crops to score at a time, if it is 1 or more.

    Raises:
        ValueError: it is below 1.

    Example:
        >>> check_chunk(16)
        16
    """
    if chunk < 1:
        raise ValueError(f"Crops are scored 1 or more at a time, got a chunk of {chunk}: use a larger one.")
    return chunk


def map_chunks(function: Callable[..., Tensor], tensors: Sequence[Tensor], chunk: int) -> Tensor:
    """`function(*tensors)` over the first dimension, `chunk` rows at a time, for a function that takes rows apart.

    Where there is more than one chunk, only the function's inputs are saved for backward and it runs again there, so
    that memory does not grow with the number of rows, with gradients or without.

    Raises:
        ValueError: `chunk` is below 1.

    Example:
        >>> map_chunks(torch.sqrt, [torch.tensor([1.0, 4.0, 9.0])], chunk=2)
        tensor([1., 2., 3.])
    """
    check_chunk(chunk)
    several = len(tensors[0]) > chunk
    pieces = zip(*(rows.split(chunk) for rows in tensors), strict=True)
    return torch.cat([maybe_checkpoint(several, function, *piece) for piece in pieces])


def mean_over_crops(
    score: Callable[..., Tensor],
    images: Sequence[Tensor],
    places: Sequence[Place],
    size: int,
    chunk: int = 16,
    checkpointing: bool = False,
) -> Tensor:
    """The mean over crops of each image's scores, (N,) or (N, D), in at least float32.

    Args:
        score: maps crops (M, C, size, size) of each of the `images` to scores (M,) or (M, D).
        images: an image, or an image and its reference, (N, C, H, W) each.
        places: where crops are cut, the same in all `images`.
        size: side of the crops.
        chunk: how many crops are scored at a time (at least one per image), which bounds memory if no gradient is
            needed.
        checkpointing: saves only the crops for backward and scores them again there, which bounds memory with
            gradients.

    Raises:
        ValueError: `chunk` is below 1.

    Example:
        >>> image = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> mean_over_crops(lambda x: x.mean((1, 2, 3)), [image], tile_places(4, 4, 2, 2), 2)
        tensor([7.5000])
    """
    check_chunk(chunk)
    count = images[0].shape[0]
    totals: list[Tensor] = []
    step = max(1, chunk // count)
    times = Counter(places)  # on a small image a grid has the same place several times
    different = list(times)
    for start in range(0, len(different), step):
        some = different[start : start + step]
        crops = [crop(image, some, size).flatten(0, 1) for image in images]
        scores = maybe_checkpoint(checkpointing, score, *crops).unflatten(0, (count, len(some)))
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        totals += [times[place] * scores[:, index] for index, place in enumerate(some)]
    return torch.stack(totals).sum(0) / len(places)


def _check_size(height: int, width: int, size: int) -> None:
    """Raises ValueError if a crop is larger than the image."""
    if min(height, width) < size:
        raise ValueError(
            f"Crops of {size}x{size} pixels need an image as large, got {height}x{width}: enlarge it first."
        )


def _crop(image: Tensor, places: Sequence[Place], size: int) -> Tensor:
    """`crop` by plain operations."""
    return torch.stack([image[..., top : top + size, left : left + size] for top, left in places], 1)


class _Crop(torch.autograd.Function):
    """`crop`; its gradient is `_Paste`, whose gradient is this, so it can be differentiated any number of times."""

    @staticmethod
    def forward(image: Tensor, places: Sequence[Place], size: int) -> Tensor:
        return _crop(image, places, size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        image, ctx.places, ctx.size = inputs
        ctx.shape = image.shape

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Paste.apply(gradient, ctx.places, ctx.size, ctx.shape), None, None


class _Paste(torch.autograd.Function):
    """The sum (N, C, H, W) of crops, each at its place."""

    @staticmethod
    def forward(crops: Tensor, places: Sequence[Place], size: int, shape: torch.Size) -> Tensor:
        total = crops.new_zeros(shape)
        for (top, left), each in zip(places, crops.unbind(1), strict=True):
            total[..., top : top + size, left : left + size] += each
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.places, ctx.size, _ = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Crop.apply(gradient, ctx.places, ctx.size), None, None, None
