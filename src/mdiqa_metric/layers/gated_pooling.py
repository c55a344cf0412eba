"""Gated local pooling: maps of several resolutions, weighted by a gate, reduced to one size and width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.pooling import gated_pool, reduced_pool
from .convolution import FrozenConv2d


class Gate(nn.Sequential):
    """A weight in (0, 1) for each position of a map: (N, C, H, W) -> (N, 1, H, W).

    Three convolutions with GELU between them, then a sigmoid.

    Example:
        >>> Gate(channels=4)(torch.rand(1, 4, 6, 6)).shape
        torch.Size([1, 1, 6, 6])
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__(
            FrozenConv2d(channels, width, 1),
            nn.GELU(),
            FrozenConv2d(width, width, 3, padding=1),
            nn.GELU(),
            FrozenConv2d(width, 1, 3, padding=1),
            nn.Sigmoid(),
        )


class ReducedPooling(nn.Module):
    """A 1 x 1 convolution to `width` channels and GELU, averaged to a smaller size; see `ops.pooling.reduced_pool`.

    Example:
        >>> ReducedPooling(channels=4, width=8)(torch.rand(1, 4, 6, 6), (3, 2)).shape
        torch.Size([1, 8, 3, 2])
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        bound = channels**-0.5
        self.weight = nn.Parameter(torch.empty(width, channels, 1, 1).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, C, H, W) -> (N, width, *size)."""
        return reduced_pool(x, self.weight, self.bias, size)


class GatedPooling(nn.Module):
    """Gated pooling of a map: `gelu(reduce(adaptive_avg_pool2d(gelu(value(x)) * gate(x), size)))`.

    From "TOPIQ: a top-down approach from semantics to distortions for image quality assessment" (Chen et al., TIP
    2024). Its 1 x 1 convolution before the gate is folded into the gate's first one, since nothing stands between them.

    Example:
        >>> GatedPooling(channels=4, width=8)(torch.rand(1, 4, 6, 6), (3, 2)).shape
        torch.Size([1, 8, 3, 2])
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.value = FrozenConv2d(channels, channels, 1)
        self.gate = Gate(channels)
        self.reduce = FrozenConv2d(channels, width, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, C, H, W) -> (N, width, *size)."""
        return F.gelu(self.reduce(gated_pool(self.value(x), self.gate(x), size)))


class GatedPyramid(nn.Module):
    """Gated pooling of each level of a backbone to one size, usually that of the last level.

    Args:
        channels: channels of the levels, largest map first.
        width: channels of the results.

    Example:
        >>> pyramid = GatedPyramid((4, 6), width=8)
        >>> [x.shape for x in pyramid([torch.rand(1, 4, 6, 6), torch.rand(1, 6, 3, 3)], (3, 3))]
        [torch.Size([1, 8, 3, 3]), torch.Size([1, 8, 3, 3])]
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(GatedPooling(count, width) for count in channels)

    def forward(self, maps: Iterable[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Maps (N, width, *size), one per level; `maps` may be an iterator, so that each is freed after its turn."""
        return [level(x, size) for level, x in zip(self.levels, maps, strict=True)]
