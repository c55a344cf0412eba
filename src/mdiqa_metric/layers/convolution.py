"""Convolutions that save next to nothing for backward while they are frozen."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.convolution import conv


class FrozenConv2d(nn.Conv2d):
    """A convolution that saves nothing for backward while it is frozen.

    It takes what `nn.Conv2d` takes. What is not one stride and one padding by zeros for both sides, without dilation
    and groups, autograd differentiates, and keeps the input for it.
    """

    relu = False

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D, H', W')."""
        (stride, other), padding = self.stride, self.padding
        if (
            stride == other
            and not isinstance(padding, str)
            and padding[0] == padding[1]
            and self.padding_mode == "zeros"
            and self.dilation == (1, 1)
            and self.groups == 1
        ):
            return conv(x, self.weight, self.bias, stride, padding[0], self.relu)
        x = super().forward(x)
        return x.relu_() if self.relu else x


class FrozenConv2dReLU(FrozenConv2d):
    """A convolution followed by ReLU, which saves one byte per output for backward while it is frozen."""

    relu = True
