"""Conversions of color and bit depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .autograd import is_recorded

# ITU-R BT.601 luma of R, G, B, to three decimals as the standard writes it.
BT601 = (0.299, 0.587, 0.114)
# MATLAB's rgb2ycbcr: the same luma scaled to the studio range, 16..235 of 255.
STUDIO = (65.481, 128.553, 24.966)
# NTSC's chrominance I and Q of R, G, B; with BT.601's luma they make YIQ.
CHROMINANCE = ((0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
# Pillow's conversion to gray, in parts of 65536.
PILLOW = (19595.0, 38470.0, 7471.0)
# MATLAB's rgb2gray: the first row of the inverse of its YIQ matrix, which is BT.601 with more digits.
RGB2GRAY = (0.298936021293775, 0.587043074451121, 0.114020904255103)


def luma_full(image: Tensor) -> Tensor:
    """Full-range BT.601 luma, `0.299 R + 0.587 G + 0.114 B`: RGB (N, 3, H, W) in [0, 1] -> (N, 1, H, W) in [0, 1].

    Example:
        >>> luma_full(torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1))
        tensor([[[[0.5925]]]])
    """
    red, green, blue = image.split(1, 1)
    return BT601[0] * red + BT601[1] * green + BT601[2] * blue


def yiq(image: Tensor) -> Tensor:
    """NTSC's YIQ: RGB (N, 3, H, W) in [0, 1] -> full-range luma in [0, 1], I in [-0.6, 0.6] and Q in [-0.53, 0.53].

    Example:
        >>> yiq(torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)).flatten()
        tensor([ 0.5925,  0.4586, -0.0499])
    """
    red, green, blue = image.split(1, 1)
    return torch.cat([luma_full(image), *(a * red + b * green + c * blue for a, b, c in CHROMINANCE)], 1)


def luma_full_8bit(image: Tensor) -> Tensor:
    """`luma_full` of an 8-bit image, rounded to multiples of 1/255, halves up.

    One pixel in a thousand has a luma halfway between two steps, and which way float32 rounds it depends on the order
    of the sum. In float64 it goes up, since the float32 next to k / 255 is never below it: so it does here in either.
    The gradient is that of the unrounded luma (straight-through).

    Example:
        >>> luma_full_8bit(torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)) * 255
        tensor([[[[151.]]]])
    """
    luma = luma_full(image)
    # Lumas of 8-bit images are 0.001 / 255 apart, and errors of float32 a thirtieth of that.
    rounded = (luma.detach() * 255 + (0.5 + 1e-4)).floor() / 255
    return luma + (rounded - luma.detach())


def luma_studio(image: Tensor) -> Tensor:
    """Studio-range luma of MATLAB's rgb2ycbcr, `(65.481 R + 128.553 G + 24.966 B + 16) / 255`.

    RGB (N, 3, H, W) in [0, 1] -> (N, 1, H, W) in [16/255, 235/255].

    Example:
        >>> luma_studio(torch.ones(1, 3, 1, 1)) * 255
        tensor([[[[235.]]]])
    """
    red, green, blue = image.split(1, 1)
    return (STUDIO[0] * red + STUDIO[1] * green + STUDIO[2] * blue + 16.0) / 255


def gray_matlab(image: Tensor) -> Tensor:
    """MATLAB's rgb2gray of an 8-bit image: RGB (N, 3, H, W) in [0, 1] -> (N, 1, H, W), multiples of 1/255 in [0, 1].

    The gradient ignores the rounding; see `round_8bit`.

    Example:
        >>> gray_matlab(torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)) * 255
        tensor([[[[151.]]]])
    """
    red, green, blue = image.split(1, 1)
    return round_8bit(RGB2GRAY[0] * red + RGB2GRAY[1] * green + RGB2GRAY[2] * blue)


def srgb_to_linear(image: Tensor) -> Tensor:
    """Light intensities of sRGB values, of any shape, in [0, 1]: `x / 12.92` up to 0.04045, else a power of 2.4.

    Example:
        >>> srgb_to_linear(torch.tensor([0.0, 0.04, 0.5, 1.0]))
        tensor([0.0000, 0.0031, 0.2140, 1.0000])
    """
    # Below the knee the power would be of a number near 0, whose gradient is not used but must be finite.
    curved = ((image.clamp(min=0.04) + 0.055) / 1.055) ** 2.4
    return torch.where(image <= 0.04045, image / 12.92, curved)


def gray_pillow(image: Tensor) -> Tensor:
    """Pillow's gray, `convert("L")`, of an 8-bit image: RGB (N, 3, H, W) in [0, 1] -> (N, 1, H, W), multiples of 1/255.

    The gradient is that of `luma_full` (straight-through).

    Example:
        >>> gray_pillow(torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)) * 255
        tensor([[[[151.]]]])
    """
    luma = luma_full(image)
    single = image.detach().to(torch.promote_types(image.dtype, torch.float32))
    red, green, blue = (single * 255).round().split(1, 1)  # whole numbers below 2^24 from here on, which float32 holds
    gray = ((PILLOW[0] * red + PILLOW[1] * green + PILLOW[2] * blue + 32768) / 65536).floor() / 255
    return luma + (gray.to(luma.dtype) - luma.detach())


def clamp_to_range(image: Tensor) -> Tensor:
    """The image, of any shape, clamped to [0, 1]; the gradient is 1 in [0, 1], bounds included, and 0 outside.

    `torch.clamp` may have none at the bounds (as in PyTorch 2.14), so black and white pixels would not train.

    Example:
        >>> x = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.1], requires_grad=True)
        >>> clamp_to_range(x).sum().backward()
        >>> x.grad
        tensor([0., 1., 1., 1., 0.])
    """
    clamped = image.detach().clamp(0, 1)
    return torch.where((image < 0) | (image > 1), clamped, image) if is_recorded(image) else clamped


def round_8bit(image: Tensor) -> Tensor:
    """The image, of any shape, rounded to multiples of 1/255.

    The gradient is that of the unrounded image (straight-through).

    Example:
        >>> round_8bit(torch.tensor([0.5])) * 255
        tensor([128.])
    """
    return image + ((image.detach() * 255).round() / 255 - image.detach())


class Channel(NamedTuple):
    """A conversion of RGB (N, 3, H, W) in [0, 1] to the channel that a metric scores, and its description in words.

    Example:
        >>> CHANNELS["y-full"].words, CHANNELS["y-full"].convert(torch.rand(2, 3, 8, 8)).shape
        ('Y BT.601 full range', torch.Size([2, 1, 8, 8]))
    """

    words: str
    convert: Callable[[Tensor], Tensor]


CHANNELS = {
    "rgb": Channel("RGB", lambda image: image),
    "y-full": Channel("Y BT.601 full range", luma_full),
    "y-studio": Channel("Y BT.601 studio range (MATLAB)", luma_studio),
    "gray": Channel("MATLAB rgb2gray, 8 bits", gray_matlab),
}

# Appended to those words if `gray_as_is`.
GRAY_AS_IS = ", a gray pair by its one channel as it is"


def convert(image: Tensor, reference: Tensor, channel: str, gray_as_is: bool = False) -> tuple[Tensor, Tensor]:
    """Converts a pair of RGB images (N, 3, H, W) in [0, 1] to one of `CHANNELS`, (N, 3, H, W) or (N, 1, H, W).

    With `gray_as_is`, a pair in which both images have three equal channels keeps one of these channels unchanged.

    Example:
        >>> gray = torch.full((1, 3, 1, 1), 0.5)
        >>> convert(gray, gray, "y-studio")[0], convert(gray, gray, "y-studio", gray_as_is=True)[0]
        (tensor([[[[0.4922]]]]), tensor([[[[0.5000]]]]))
    """
    converted = CHANNELS[channel].convert(image), CHANNELS[channel].convert(reference)
    if not gray_as_is:
        return converted
    gray = _is_gray(image) & _is_gray(reference)
    pair = zip((image, reference), converted, strict=True)
    first, second = (torch.where(gray, plain[:, : y.shape[1]], y) for plain, y in pair)
    return first, second


def _is_gray(image: Tensor) -> Tensor:
    """Whether all three channels of each image are equal everywhere: (N, 3, H, W) -> (N, 1, 1, 1)."""
    return (image == image[:, :1]).all(dim=1, keepdim=True).all(dim=2, keepdim=True).all(dim=3, keepdim=True)
