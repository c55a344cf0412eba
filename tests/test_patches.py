"""What the metrics of patches are made of: filters' extremes, local normalization and Pillow's gray."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mdiqa_metric.metrics.cnniqa import CNNIQAPatches
from mdiqa_metric.metrics.pieapp import PieAPP
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


def test_pieapp_reaches_the_end_where_asked_and_chunks_change_nothing():
    torch.manual_seed(0)
    image, reference = photograph(64, 100).flip(3).requires_grad_(), photograph(64, 100)
    options = ((False, 512), (True, 512), (True, 1))
    metrics = [PieAPP(reach_end=end, chunk=chunk).accept_untrained() for end, chunk in options]
    for metric in metrics[1:]:
        metric.load_state_dict(metrics[0].state_dict())
    gradients = [torch.autograd.grad(metric(image, reference), image)[0] for metric in metrics]
    assert not gradients[0][..., 91:].any()
    assert gradients[1][..., 91:].any()
    torch.testing.assert_close(gradients[2], gradients[1])
    assert metrics[1].explain(image, reference).map.shape == (1, 1, 1, 3)
    encoded = metrics[2].encode(reference)
    torch.testing.assert_close(metrics[2](image, encoded), metrics[1](image, reference))
