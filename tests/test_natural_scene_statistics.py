"""Fits and filters of natural-scene statistics: what SciPy and NumPy compute, and finite where an image is flat."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.io import savemat
from scipy.ndimage import correlate
from scipy.signal import convolve2d
from scipy.stats import weibull_min

from mdiqa_metric.layers.pristine_model import PristineModel
from mdiqa_metric.metrics.ilniqe import ILNIQE, _distances
from mdiqa_metric.ops.distributions import fit_asymmetric_gaussian, fit_weibull, generalized_gaussian_shape
from mdiqa_metric.ops.filters import gaussian_derivatives
from mdiqa_metric.ops.resize import resize_matlab
from mdiqa_metric.ops.statistics import local_normalization
from mdiqa_metric.registry import create
from tests.rows import photograph


def sample(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("shape", [1.0, 2.0])
def test_fits_recover_the_distribution_that_values_were_drawn_from(shape):
    random = np.random.RandomState(0)
    magnitude = torch.from_numpy(random.gamma(1 / shape, 1, (3, 200000)) ** (1 / shape))
    right = torch.from_numpy(random.rand(3, 200000) < 0.6)  # 0.6 = r / (l + r)
    values = torch.where(right, 1.5 * magnitude, -magnitude)
    for found, expected in zip(fit_asymmetric_gaussian(values), (shape, 1.0, 1.5), strict=True):
        torch.testing.assert_close(found, torch.full((3,), expected).double(), rtol=0.05, atol=0)
    found = generalized_gaussian_shape(magnitude * sample(3, 200000).sign())
    torch.testing.assert_close(found, torch.full((3,), shape).double(), rtol=0.05, atol=0)


def test_float32_finds_the_shapes_of_float64():
    values = sample(50, 300) * sample(50, 1)
    for ours, exact in zip(fit_asymmetric_gaussian(values.float()), fit_asymmetric_gaussian(values), strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-6, atol=2e-3)
    assert fit_asymmetric_gaussian(torch.zeros(2, 9))[0].isnan().all()


def test_weibull_is_the_fit_of_greatest_likelihood():
    values = sample(2, 400).abs() + 0.01
    for row, scale, shape in zip(values.numpy(), *fit_weibull(values), strict=True):
        expected = weibull_min.fit(row, floc=0)
        assert shape.item() == pytest.approx(expected[0], rel=1e-3)
        assert scale.item() == pytest.approx(expected[2], rel=1e-3)


def test_derivatives_are_convolutions_with_the_gaussians_derivative():
    image, sigma = 255 * photograph(24, 31).double(), 1.66
    reach = math.ceil(3 * sigma)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    window = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    for ours, kernel in zip(gaussian_derivatives(image, sigma), (-x * window, -y * window), strict=True):
        theirs = np.stack([convolve2d(plane, kernel, "same") for plane in image[0].numpy()])
        torch.testing.assert_close(ours[0], torch.from_numpy(theirs))
    flat = gaussian_derivatives(torch.full((1, 1, 24, 24), 77.7), sigma)
    assert not any(maps[..., reach:-reach, reach:-reach].any() for maps in flat)


def test_normalization_is_that_of_niqe():
    image = 255 * photograph(20, 25)[:, :1].double()
    taps = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    window = np.outer(taps, taps) / taps.sum() ** 2
    plane = image[0, 0].numpy()
    mean = correlate(plane, window, mode="nearest")
    deviation = np.sqrt(np.abs(correlate(plane**2, window, mode="nearest") - mean**2))
    ours = local_normalization(image, 7, 7 / 6)[0, 0]
    torch.testing.assert_close(ours, torch.from_numpy((plane - mean) / (deviation + 1)), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(local_normalization(image.float(), 7, 7 / 6)[0, 0].double(), ours, rtol=1e-5, atol=1e-5)


def test_resize_keeps_flat_images_ramps_and_sizes():
    ramp = torch.arange(12.0).reshape(3, 4)
    torch.testing.assert_close(resize_matlab(ramp, (3, 4)), ramp)
    assert (resize_matlab(torch.full((5, 7), 3.0), (11, 4)) - 3).abs().max() < 1e-5
    inside = resize_matlab(torch.arange(40.0).expand(5, -1), (5, 20))[2, 3:-3]
    torch.testing.assert_close(inside, torch.arange(20.0)[3:-3] * 2 + 0.5)
    torch.testing.assert_close(
        resize_matlab(ramp, (9, 2)).double(), resize_matlab(ramp.double(), (9, 2)), rtol=0, atol=1e-5
    )


def test_distances_are_those_of_the_inverted_mean_covariance():
    features, root = sample(1, 36, 468), sample(430, 430)
    mean, center, vectors = sample(1, 430), sample(1, 468), sample(468, 430) / 20
    covariance = root @ root.T + 0.01 * torch.eye(430)
    state = ILNIQE.from_published("", {"templateModel": [mean, covariance, center, vectors]})
    features[0, 3, 7] = math.nan
    ours = _distances(features, state["mean"], state["projection"], state["origin"])[0]
    coefficients = (features[0] - center) @ vectors
    kept = coefficients[[index for index in range(36) if index != 3]]
    coefficients[3] = kept.mean(0)
    inverse = torch.linalg.inv((covariance + kept.T.cov()) / 2)
    apart = coefficients - mean
    torch.testing.assert_close(ours, ((apart @ inverse) * apart).sum(1).sqrt())


def test_the_pristine_model_inverts_the_mean_covariance_and_leaves_flat_blocks_out():
    features, root, mean = sample(2, 9, 36), sample(36, 36), sample(1, 36)
    features[1, 4] = math.nan
    covariance = root @ root.T + 0.01 * torch.eye(36)
    model = PristineModel(36).double()
    model.load_state_dict(PristineModel.from_published({"mu_prisparam": mean, "cov_prisparam": covariance}))
    for each, found in zip(features, model(features), strict=True):
        kept = each[~each[:, 0].isnan()]
        apart = kept.mean(0) - mean[0]
        inverse = torch.linalg.inv((covariance + kept.T.cov()) / 2)
        torch.testing.assert_close(found, (apart @ inverse @ apart).sqrt())


def test_an_image_without_structure_gives_nan_and_leaves_the_others_of_its_batch_alone():
    metric = create("niqe")
    photo = photograph(192, 200)
    scores = metric(torch.cat([torch.full_like(photo, 0.5), photo]))
    assert scores[0].isnan()
    torch.testing.assert_close(scores[1:], metric(photo))


def test_a_flat_image_scores_worse_than_a_photograph():
    metric = create("ilniqe", weights=None)
    flat, photo = metric(torch.full((1, 3, 64, 64), 0.5)), metric(photograph(64, 64))
    assert flat.isfinite()
    assert flat > photo


def test_cells_and_structs_of_a_mat_file_are_read(tmp_path):
    template = np.empty((1, 4), object)
    arrays = [np.ones((1, 430)), np.eye(430), np.zeros((1, 468)), np.eye(468, 430)]
    for index, array in enumerate(arrays):
        template[0, index] = array
    savemat(tmp_path / "model.mat", {"templateModel": template})
    metric = create("ilniqe", weights=tmp_path / "model.mat")
    assert torch.equal(metric.projection, torch.eye(468, 430))
    assert torch.equal(metric.origin, torch.ones(430))
