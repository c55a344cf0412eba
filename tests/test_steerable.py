"""Bands of steerable pyramids are those of Simoncelli's tools, built here step by step as those build them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mdiqa_metric.ops.color import luma_full, luma_full_8bit
from mdiqa_metric.ops.steerable import complex_bands
from tests.rows import photograph


def cascade(plane, level, orientations):
    """The complex bands (K, h, w) of a plane by buildSCFpyr's recursion: filter, keep the middle, filter again."""
    spectrum = np.fft.fftshift(np.fft.fft2(plane))
    y, x = ((np.arange(size) - size // 2) / (size / 2) for size in plane.shape)
    y, x = np.broadcast_to(y[:, None], plane.shape), np.broadcast_to(x, plane.shape)

    def high(end):
        """Rises from 0 to 1 over the octave that ends at 2^end."""
        octaves = np.log2(np.maximum(np.hypot(x, y), 1e-9))
        return np.sin(np.pi / 2 * np.clip(octaves - end + 1, 0, 1))

    spectrum = spectrum * np.sqrt(1 - high(0) ** 2)
    for step in range(1, level):
        middle = tuple(
            slice(size // 2 - (size + 1) // 2 // 2, size // 2 - (size + 1) // 2 // 2 + (size + 1) // 2)
            for size in spectrum.shape
        )
        spectrum, y, x = spectrum[middle], y[middle], x[middle]
        spectrum = spectrum * np.sqrt(1 - high(-step) ** 2)
    order, angle, bands = orientations - 1, np.arctan2(y, x), []
    constant = 4**order * math.factorial(order) ** 2 / (orientations * math.factorial(2 * order))
    for band in range(orientations):
        cosine = np.cos(angle - np.pi * band / orientations).clip(0) ** order
        masked = (-1j) ** order * spectrum * 2 * np.sqrt(constant) * cosine * high(-level)
        bands.append(np.fft.ifft2(np.fft.ifftshift(masked)))
    return np.stack(bands)


@pytest.mark.parametrize(
    ("height", "width", "level", "orientations"), [(64, 96, 4, 8), (67, 90, 3, 5), (129, 65, 2, 4)]
)
def test_complex_bands_are_those_of_the_recursion(height, width, level, orientations):
    planes = photograph(height, width).double()[0, :2, None]
    for plane, ours in zip(planes, complex_bands(planes, level, orientations), strict=True):
        theirs = torch.from_numpy(cascade(plane[0].numpy(), level, orientations))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_a_flat_map_has_no_complex_bands_and_no_gradient():
    flat = torch.full((1, 1, 64, 64), 0.7, requires_grad=True)
    bands = complex_bands(flat, 4, 8)
    assert bands.abs().max() < 1e-9
    (gradient,) = torch.autograd.grad(bands.abs().square().sum(), flat)
    assert gradient.abs().max() < 1e-9


def test_8_bit_luma_rounds_halves_up_in_both_precisions():
    """One in a thousand colors lies halfway; all whose red, green and blue give such a luma go up."""
    levels = torch.randint(256, (1, 3, 400, 400), generator=torch.Generator().manual_seed(0))
    thousandths = 299 * levels[:, :1] + 587 * levels[:, 1:2] + 114 * levels[:, 2:]
    assert (thousandths % 1000 == 500).sum() > 50
    expected = (thousandths + 500) // 1000
    image = levels.float() / 255
    for x in (image, image.double()):
        assert torch.equal((luma_full_8bit(x) * 255).round().long(), expected)
        assert (luma_full_8bit(x) * 255 - expected).abs().max() < 1e-4
    gradients = []
    for convert in (luma_full, luma_full_8bit):
        x = image.clone().requires_grad_()
        gradients.append(torch.autograd.grad(convert(x).sum(), x)[0])
    assert torch.equal(*gradients)
