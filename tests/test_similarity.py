"""Similarity maps, gradient maps and correlation: right, exact where they should be, and finite everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.fft import dctn
from scipy.ndimage import correlate
from scipy.stats import pearsonr

from mdiqa_metric.ops.correlation import pearson
from mdiqa_metric.ops.dct import block_dct, blocks_of
from mdiqa_metric.ops.filters import pad_symmetric
from mdiqa_metric.ops.gradients import gradient_magnitude, gradient_maps
from mdiqa_metric.ops.powers import power
from mdiqa_metric.ops.pyramid import double, halve
from mdiqa_metric.ops.similarity import similarity_map
from mdiqa_metric.ops.statistics import standard_deviation
from tests.rows import photograph

KERNELS = {
    "prewitt": np.array([[1, 0, -1], [1, 0, -1], [1, 0, -1]]) / 3,
    "scharr": np.array([[3, 0, -3], [10, 0, -10], [3, 0, -3]]) / 16,
    "sobel": np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]]) / 4,
}


def test_similarity_is_the_formula_and_exactly_one_for_equal_values():
    x, y = torch.rand(2, 2, 3, 8, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(similarity_map(x, y, 0.01), (2 * x * y + 0.01) / (x**2 + y**2 + 0.01))
    equal = (1e4 * torch.rand(1000)).requires_grad_()
    similarity = similarity_map(equal, equal.detach().clone(), 1e-6)
    assert torch.equal(similarity, torch.ones(1000))
    assert not torch.autograd.grad(similarity.sum(), equal)[0].any()
    assert torch.autograd.gradcheck(lambda x, y: similarity_map(x, y, 0.01), (x.requires_grad_(), y.requires_grad_()))


def test_half_precision_computes_in_float32():
    x = photograph(16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert similarity_map(x.bfloat16(), x.flip(3).bfloat16(), 0.01).dtype == torch.float32
        assert gradient_maps(x.bfloat16(), "scharr")[0].dtype == torch.float32
        assert pearson(x.flatten(1).bfloat16(), x.flip(3).flatten(1).bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("operator", KERNELS)
def test_gradients_are_the_operators_correlation_framed_by_zeros(operator):
    image = photograph(20, 27).double()
    for ours, kernel in zip(gradient_maps(image, operator), (KERNELS[operator], KERNELS[operator].T), strict=True):
        theirs = np.stack([correlate(plane, kernel, mode="constant") for plane in image[0].numpy()])
        torch.testing.assert_close(ours[0], torch.from_numpy(theirs))


@pytest.mark.parametrize("operator", KERNELS)
def test_the_magnitude_is_exact_and_its_gradient_finite_on_flat_faint_and_textured_images(operator):
    flat, faint, photo = torch.full((1, 1, 9, 9), 0.7), 0.5 + 1e-7 * torch.rand(1, 1, 9, 9), photograph(16, 18)
    for image in (flat, faint, photo, 1e-25 * photo):
        image = image.clone().requires_grad_()
        horizontal, vertical = gradient_maps(image, operator)
        magnitude = gradient_magnitude(image, operator)
        torch.testing.assert_close(magnitude, torch.hypot(horizontal, vertical), rtol=1e-5, atol=1e-20)
        (gradient,) = torch.autograd.grad(magnitude.sum(), image)
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 9
    inner = flat.clone().requires_grad_()
    magnitude = gradient_magnitude(inner, operator)[..., 1:-1, 1:-1]
    assert not magnitude.any()
    assert not torch.autograd.grad(magnitude.sum(), inner)[0].any()


def test_pearson_is_scipys_and_zero_for_a_constant():
    x, y = torch.randn(2, 3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = [pearsonr(a, b).statistic for a, b in zip(x, y, strict=True)]
    torch.testing.assert_close(pearson(x, y), torch.tensor(expected), rtol=1e-6, atol=1e-7)
    constant = torch.full((3, 50), 0.3, requires_grad=True)
    found = pearson(constant, y.float())
    torch.testing.assert_close(found, torch.zeros(3), rtol=0, atol=1e-2)
    assert torch.autograd.grad(found.sum(), constant)[0].isfinite().all()
    assert torch.autograd.gradcheck(pearson, (x.requires_grad_(), y.requires_grad_()))


@pytest.mark.parametrize("exponent", [0.5, 0.25, 1.3])
def test_a_power_has_no_gradient_at_zero_and_the_right_one_elsewhere(exponent):
    x = torch.tensor([0.0, 1e-30, 0.25, 3.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(power(x, exponent).sum(), x)
    torch.testing.assert_close(power(x, exponent), x**exponent)
    expected = exponent * x.detach() ** (exponent - 1)
    torch.testing.assert_close(gradient, expected.masked_fill(x == 0, 0.0))


def test_the_deviation_of_a_constant_map_is_zero_and_has_no_gradient():
    maps = torch.stack([torch.full((5, 7), 0.3), torch.rand(5, 7)])[None].requires_grad_()
    for unbiased in (True, False):
        deviation = standard_deviation(maps, unbiased)
        torch.testing.assert_close(deviation[0, 1], maps[0, 1].std(unbiased=unbiased))
        (gradient,) = torch.autograd.grad(deviation.sum(), maps)
        assert deviation[0, 0] == 0
        assert not gradient[0, 0].any()
        assert gradient.isfinite().all()


def test_the_cosine_transform_is_scipys():
    image = torch.rand(2, 1, 19, 24, dtype=torch.float64)
    blocks = image[:, 0, :16].numpy().reshape(2, 2, 8, 3, 8).transpose(0, 1, 3, 2, 4)
    expected = dctn(blocks, axes=(3, 4), norm="ortho").reshape(2, 2, 3, 64).transpose(0, 3, 1, 2)
    found = block_dct(blocks_of(image)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(block_dct(blocks_of(image), [(1, 2)]).numpy(), found[:, 10:11], atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(16, 20), (15, 21), (17, 18)])
def test_a_pyramid_is_filtered_and_thinned_then_spread_and_filtered(height, width):
    taps = np.array([0.05, 0.25, 0.4, 0.25, 0.05])
    image = torch.rand(2, 1, height, width, dtype=torch.float64)
    padded = pad_symmetric(pad_symmetric(image, -2, 2, 2), -1, 2, 2)
    smaller = halve(padded, taps.tolist())
    larger = double(F.pad(smaller, (1, 1, 1, 1), mode="replicate"), taps.tolist(), (height, width))
    for plane, small, large in zip(image[:, 0].numpy(), smaller[:, 0].numpy(), larger[:, 0].numpy(), strict=True):
        np.testing.assert_allclose(small, correlate(plane, np.outer(taps, taps), mode="reflect")[::2, ::2], atol=1e-12)
        spread = np.zeros([2 * size + 4 for size in small.shape])
        spread[::2, ::2] = 4 * np.pad(small, 1, mode="edge")
        expected = correlate(spread, np.outer(taps, taps), mode="constant")[2 : 2 + height, 2 : 2 + width]
        np.testing.assert_allclose(large, expected, atol=1e-12)
