"""Convolutions as modules that, while they are frozen, keep next to nothing for backward."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.convolution import conv


class Conv(nn.Conv2d):
    """A convolution that keeps nothing for backward while it is frozen."""

    relu = False

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D, H', W')."""
        return conv(x, self.weight, self.bias, self.stride[0], int(self.padding[0]), self.relu)


class ConvReLU(Conv):
    """A convolution and the ReLU behind it, that keeps a byte an output for backward while it is frozen."""

    relu = True
