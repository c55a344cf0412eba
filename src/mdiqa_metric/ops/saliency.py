"""Where an image draws the eye, for metrics that weight by it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .color import srgb_to_linear
from .filters import filter_separable, gaussian_window
from .powers import power
from .precision import full_precision
from .resize import resize_matlab, shrink_matlab

# The image is analyzed at a quarter of its size; the map is blurred by a window of 10 pixels.
SHRINK, WINDOW, DEVIATION = 4, 10, 3.8
# Of SDSP: the side to which images are resized, center and bandwidth of the log-Gabor filter, and how fast the distance
# from the center (in pixels) and coldness of color tell.
SDSP_SIDE, SDSP_CENTER, SDSP_BANDWIDTH, SDSP_CENTER_SPREAD, SDSP_COLOR_SPREAD = 256, 0.021, 1.34, 145.0, 0.001
# Linear RGB to CIE XYZ, and the white D50.
TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
D50 = (0.9642119944211994, 1.0, 0.8251882845188288)
# Amplitudes below this are rounding noise of images without structure.
FAINT = 1e-4


@full_precision
def spectral_residual(luma: Tensor) -> Tensor:
    """The spectral residual saliency (Hou and Zhang, CVPR 2007) of luma (N, 1, H, W) in [0, 1]: (N, 1, H, W).

    The inverse transform of what the log spectrum has beyond its 3x3 mean, squared, blurred and brought to [0, 1] for
    each image; 0 where an image has no structure. Resized by MATLAB's imresize, whose overshoot leaves [0, 1] a little.
    In at least float32.

    Example:
        >>> image = torch.zeros(1, 1, 64, 64)
        >>> image[..., 16:20, 40:44] = 1
        >>> saliency = spectral_residual(image)
        >>> bool(saliency[..., 16:20, 40:44].mean() > 4 * saliency.mean())
        True
    """
    spectrum = torch.fft.fft2(shrink_matlab(luma, SHRINK))
    amplitude = torch.view_as_real(spectrum).square().sum(-1)
    log = 0.5 * (amplitude + FAINT**2).log()
    smooth = F.avg_pool2d(F.pad(log, (1, 1, 1, 1), mode="replicate"), 3, 1)
    # The phase times exp(log - smooth).
    residual = torch.view_as_real(torch.fft.ifft2(spectrum * (-smooth).exp())).square().sum(-1)
    # A window of even width reaches one pixel further to the right and down, as in the authors' program.
    before, after = (WINDOW - 1) // 2, WINDOW // 2
    padded = F.pad(residual, (before, after, before, after))
    blurred = filter_separable(padded, gaussian_window(WINDOW, DEVIATION, residual))
    return resize_matlab(_unit_range(blurred), luma.shape[-2:])


@full_precision
def simple_priors(image: Tensor) -> Tensor:
    """Saliency by simple priors (SDSP: Zhang, Gu, Li, ICIP 2013) of RGB (N, 3, H, W) in [0, 1]: (N, 1, H, W) in [0, 1].

    The product of three maps of the image resized to 256x256, in Lab: the length of its log-Gabor responses, closeness
    to the center, and warmth of color. 0 where an image has no structure. In at least float32.

    Example:
        >>> image = torch.zeros(1, 3, 64, 64)
        >>> image[:, 0, 28:36, 28:36] = 1
        >>> saliency = simple_priors(image)
        >>> bool(saliency[..., 28:36, 28:36].mean() > 4 * saliency.mean())
        True
    """
    side = SDSP_SIDE
    lab = _lab_d50(srgb_to_linear(F.interpolate(image, (side, side), mode="bilinear")))
    places = (torch.arange(side, dtype=image.dtype, device=image.device) - side // 2) / side
    radius = torch.fft.ifftshift(torch.hypot(places[:, None], places))
    outside = (radius > 0.5) | (radius == 0)
    gabor = (-(radius.masked_fill(outside, 1.0) / SDSP_CENTER).log().square() / (2 * SDSP_BANDWIDTH**2)).exp()
    # Beyond the largest circle the authors' radius is 0, which the logarithm makes 0.
    gabor = gabor.masked_fill(outside, 0.0)
    responses = torch.fft.irfft2(torch.fft.rfft2(lab) * gabor[:, : side // 2 + 1], [side, side])
    frequency = power(responses.square().sum(1, keepdim=True), 0.5)
    center = (-((places[:, None] * side + 1).square() + (places * side + 1).square()) / SDSP_CENTER_SPREAD**2).exp()
    warmth = 1 - (-_unit_range(lab)[:, 1:].square().sum(1, keepdim=True) / SDSP_COLOR_SPREAD**2).exp()
    saliency = F.interpolate(frequency * center * warmth, image.shape[-2:], mode="bilinear", align_corners=True)
    return _unit_range(saliency)


def _unit_range(maps: Tensor) -> Tensor:
    """Each map (N, C, H, W) brought to [0, 1]; 0 where it is constant."""
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    flat = high == low
    return ((maps - low) / (high - low).masked_fill(flat, 1.0)).masked_fill(flat, 0.0)


def _lab_d50(linear: Tensor) -> Tensor:
    """CIE Lab of linear RGB (N, 3, H, W), with D50 as white, as the authors' program has it."""
    matrix = torch.tensor(TO_XYZ, dtype=linear.dtype, device=linear.device)
    white = torch.tensor(D50, dtype=linear.dtype, device=linear.device)[:, None, None]
    ratio = torch.einsum("ij,njhw->nihw", matrix, linear) / white
    root = torch.where(ratio > 0.008856, ratio.clamp(min=0.008856) ** (1 / 3), (903.3 * ratio + 16) / 116)
    x, y, z = root.split(1, 1)
    return torch.cat([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)
