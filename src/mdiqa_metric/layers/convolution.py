"""Convolutions that save almost nothing for backward while they are frozen."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.convolution import conv


class FrozenConv2d(nn.Conv2d):
    """A convolution that saves nothing for backward while it is frozen: (N, C, H, W) -> (N, D, H', W').

    It takes what `nn.Conv2d` takes. Autograd saves the input as usual if stride or padding differ between the sides, or
    with dilation, groups or padding other than zeros.

    Example:
        >>> import torch
        >>> FrozenConv2d(3, 8, 3, stride=2, padding=1).requires_grad_(False)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 8, 16, 16])
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
    """`FrozenConv2d` followed by ReLU, which saves one byte per output for backward while it is frozen.

    Example:
        >>> import torch
        >>> bool((FrozenConv2dReLU(3, 8, 1)(torch.rand(1, 3, 4, 4)) >= 0).all())
        True
    """

    relu = True
