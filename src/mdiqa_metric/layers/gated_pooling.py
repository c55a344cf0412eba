"""Gated local pooling: maps of several resolutions, weighted by a gate, brought to one size and width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.pooling import gated_pool, reduced_pool
from .convolution import FrozenConv2d


class Gate(nn.Sequential):
    """A weight in (0, 1) for each position of a map (N, C, H, W): (N, 1, H, W)."""

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
    """A map (N, C, H, W) brought to another width by a 1 x 1 convolution and GELU, then averaged to a smaller size."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        bound = channels**-0.5
        self.weight = nn.Parameter(torch.empty(width, channels, 1, 1).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, C, H, W) -> (N, width, *size)."""
        return reduced_pool(x, self.weight, self.bias, size)


class GatedPooling(nn.Module):
    """A gated map (N, C, H, W), averaged to a smaller size and brought to another width.

    From "TOPIQ: a top-down approach from semantics to distortions for image quality assessment" (Chen et al., TIP
    2024). Its 1 x 1 convolution before the gate is folded into the gate's first, for nothing stands between them.
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
    """Gated pooling of each level of a backbone to the size of the last.

    Args:
        channels: those of the levels, from the largest map to the smallest.
        width: channels of what comes out.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(GatedPooling(count, width) for count in channels)

    def forward(self, maps: Iterable[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Maps (N, width, *size), one a level; `maps` may be a walk, whose maps are let go one by one."""
        return [level(x, size) for level, x in zip(self.levels, maps, strict=True)]
