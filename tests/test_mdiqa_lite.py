"""MDIQA-lite: what its scores are made of, what its dimensions answer to, and how small it is."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from skimage import data

import mdiqa_metric
from mdiqa_metric import DimensionDistance, DimensionMean, MDIQALite
from mdiqa_metric.registry import locate
from mdiqa_metric.train.distortions import DISTORTIONS, gaussian_blur
from tests.rows import photograph

NAMES = MDIQALite.dimension_names


@pytest.fixture(scope="module")
def lite():
    return mdiqa_metric.create("mdiqa-lite")


@pytest.fixture(scope="module")
def unseen():
    """Photographs that scikit-image ships, which training never saw."""
    made = []
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        pixels = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float() / 255
        top, left = ((length - 288) // 2 for length in pixels.shape[2:])
        made.append(pixels[..., top : top + 288, left : left + 288])
    return made


def test_it_is_small_and_comes_with_the_package(lite):
    assert sum(weight.numel() for weight in lite.parameters()) < 6e6
    assert locate("mdiqa-lite", fetch=False).stat().st_size < 10e6
    assert not any(weight.requires_grad for weight in lite.parameters())


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 992), (992, 64), (65, 97), (480, 640)])
def test_any_size_from_64_pixels_works(lite, height, width):
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1)).requires_grad_()
    for form in (lite, DimensionMean(lite)):
        score = form(image)
        assert ((score >= 0) & (score <= 1)).all()
        (gradient,) = torch.autograd.grad(score.sum(), image)
        assert gradient.isfinite().all()
        assert gradient.any()
    with pytest.raises(ValueError, match="from 64x64 pixels up, got an image of 63x64"):
        lite(torch.rand(1, 3, 63, 64))


def test_a_clean_image_is_good_at_every_size(lite, unseen):
    """A model that can tell a crop's size must not answer to it."""
    for side in (64, 96, 128, 192, 288):
        crops = torch.cat([image[..., :side, :side] for image in (unseen[0], unseen[1], unseen[2])])
        assert lite(crops).min() > 0.4
        assert lite.dimensions(crops)[:, 3:].min() > 0.4


def test_an_explanation_adds_up(lite):
    lite.set_weights(sharpness=2.0, colorfulness=0.0)
    image = torch.cat([photograph(96, 128), photograph(96, 128).flip(3)])
    found = lite.explain(image)
    torch.testing.assert_close(found.overall, lite(image))
    torch.testing.assert_close(found.contributions.sum(1) + found.remainder, found.overall)
    torch.testing.assert_close(found.scores, lite.dimensions(image))
    torch.testing.assert_close(found.weights.sum(1), torch.ones(2))
    assert found.weights[:, NAMES.index("colorfulness")].eq(0).all()
    assert found.maps.shape == (2, 5, 6, 8)
    lite.set_weights([1.0] * 5)


def test_the_map_of_sharpness_shows_where_an_image_is_soft(lite):
    image = data.astronaut()[:256, 128:384]
    sharp = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
    soft = sharp.clone()
    soft[:, :, 128:] = gaussian_blur(sharp, 0.7, Random(0))[:, :, 128:]
    fallen = (lite.explain(sharp[None]).maps - lite.explain(soft[None]).maps)[0, NAMES.index("sharpness")]
    assert fallen[:, 10:].mean() > 3 * fallen[:, :6].mean().abs()


# What the embedded weights reach on these images. The aim is 0.95: colorfulness peaks before the vivid ones,
# brightness takes the dark rocket for under-exposed, and coarse blotches hardly move noisiness (other noise does).
REACHED = {"brightness": 0.74, "colorfulness": 0.65, "contrast": 0.95, "noisiness": 0.9, "sharpness": 0.99}


@pytest.mark.parametrize("name", NAMES)
def test_ladders_of_a_change_order_its_dimension(lite, unseen, name):
    """On images it never saw, every kind of change whose harm is beyond doubt."""
    index, strengths, orders, own, others = NAMES.index(name), (0, 0.15, 0.3, 0.5, 0.7, 0.9), [], [], []
    for number, image in enumerate(unseen):
        for change in (change for change in DISTORTIONS[name] if change.severity == 1):
            rungs = [image[0], *(change.apply(image[0], strength, Random(number)) for strength in strengths[1:])]
            scores = lite.dimensions(torch.stack(rungs)).numpy()
            orders.append(-spearmanr(strengths, scores[:, index]).statistic)
            moved = np.abs(scores - scores[0]).mean(0)
            own.append(moved[index])
            others.append(np.delete(moved, index).mean())
    assert np.mean(orders) >= REACHED[name]
    assert np.mean(own) > 1.5 * np.mean(others)


def test_a_size_to_be_seen_at(lite):
    image = photograph(128, 160)
    seen = mdiqa_metric.create("mdiqa-lite", side=96)
    smaller = torch.nn.functional.interpolate(image, (96, 120), mode="bicubic", antialias=True)
    torch.testing.assert_close(seen(image), lite(smaller.clamp(0, 1)), rtol=0, atol=2e-3)
    assert "side=96" in seen.fingerprint()
    assert "shorter side to 96" in seen.fingerprint()
    with pytest.raises(ValueError, match="from 64 pixels up or None, got 32"):
        MDIQALite(side=32)


def test_distance_and_sharing_work_as_for_mdiqa(lite, tmp_path):
    reference = photograph(96, 128)
    image = (reference + 0.1 * torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    distance = DimensionDistance(lite)
    assert distance(reference, reference).eq(0).all()
    torch.testing.assert_close(distance(image, distance.encode(reference)), distance(image, reference))
    lite.save_pretrained(tmp_path)
    again = MDIQALite.from_pretrained(tmp_path)
    torch.testing.assert_close(again(image), lite(image))
