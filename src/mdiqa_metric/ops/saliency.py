"""Where an image draws the eye, for metrics that weight by it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .filters import filter_separable, gaussian_window
from .precision import full_precision
from .resize import resize_matlab, shrink_matlab

# The image is analyzed at a quarter of its size; the map is blurred by a window of 10 pixels.
SHRINK, WINDOW, DEVIATION = 4, 10, 3.8
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
    low, high = blurred.amin((2, 3), keepdim=True), blurred.amax((2, 3), keepdim=True)
    flat = high == low
    unit = ((blurred - low) / (high - low).masked_fill(flat, 1.0)).masked_fill(flat, 0.0)
    return resize_matlab(unit, luma.shape[-2:])
