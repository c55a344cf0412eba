"""What the metrics of patches are made of: filters' extremes, local normalization and Pillow's gray."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mdiqa_metric.metrics.cnniqa import CNNIQAPatches
from mdiqa_metric.ops import extremes
from mdiqa_metric.ops.color import gray_pillow, luma_full
from mdiqa_metric.ops.extremes import filter_extremes
from mdiqa_metric.ops.statistics import normalize_locally
from tests.rows import photograph


@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_extremes_are_those_of_the_maps_whatever_is_computed_at_a_time(rows, monkeypatch):
    monkeypatch.setattr(extremes, "ROWS", rows)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 20, 27, generator=generator, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(*shape, generator=generator).double() for shape in ((4, 3, 7, 7), (4,)))
    maps = F.conv2d(image, weight, bias).flatten(2)
    expected, found = torch.cat([maps.amax(2), maps.amin(2)], 1), filter_extremes(image, weight, bias)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(each.square().sum(), image)[0] for each in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_local_normalization_is_the_formula_and_finite_on_flat_maps():
    x = luma_full(photograph(24, 33)).double().requires_grad_()
    near = F.pad(x, (1, 1, 1, 1), mode="replicate").unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
    expected = (x - near.mean(4)) / (near.var(4, unbiased=False).sqrt() + 1)
    torch.testing.assert_close(normalize_locally(x), expected)
    flat = torch.full((1, 1, 6, 7), 0.3, requires_grad=True)
    assert not normalize_locally(flat).any()
    assert torch.autograd.grad(normalize_locally(flat).square().sum(), flat)[0].isfinite().all()


def test_gray_is_pillows():
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    expected = torch.from_numpy(np.array(Image.fromarray(pixels).convert("L")))
    assert torch.equal((gray_pillow(image)[0, 0] * 255).round(), expected.float())


def test_rounding_moves_cnniqa_by_little_and_the_last_pixels_by_nothing():
    torch.manual_seed(0)
    metrics = [CNNIQAPatches(convention).accept_untrained() for convention in ("unrounded", "8-bit")]
    metrics[1].load_state_dict(metrics[0].state_dict())
    image = photograph(64, 97)
    scores = [metric(image) for metric in metrics]
    torch.testing.assert_close(*scores, rtol=0.05, atol=0)
    assert metrics[0].explain(image).map.shape == (1, 1, 1, 3)
    image = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(metrics[0](image), image)
    assert gradient[..., :32, :].any()
    assert not gradient[..., 32:, :].any()
