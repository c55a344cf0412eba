"""MANIQA on several crops, as its authors and as pyiqa pool them."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from mdiqa_metric.metrics.maniqa import MANIQA
from tests.rows import metric_of, photograph, row_of


def test_the_score_is_the_mean_over_crops_or_the_weighted_mean_over_their_places():
    metric = copy.deepcopy(metric_of(row_of("maniqa")))
    metric.crops = 4
    image = photograph(73, 70)
    corners = [image[..., top : top + 64, left : left + 64] for top in (0, 4) for left in (0, 3)]
    for metric.chunk in (4, 3):
        torch.testing.assert_close(metric(image), torch.stack([metric(each) for each in corners]).mean(0))
        found = metric.explain(image)
        assert found.map.shape == (1, 4, 8, 8)
        torch.testing.assert_close(found.weights.sum((2, 3)), torch.ones(1, 4))
    metric.convention = "pyiqa"
    pooled = metric.explain(image)
    torch.testing.assert_close(pooled.weights.sum(), torch.tensor(1.0))
    assert torch.equal(pooled.map, found.map)
    shares = pooled.weights / pooled.weights.sum((2, 3), keepdim=True)
    torch.testing.assert_close(shares, found.weights)
    larger = F.interpolate(image[..., :64, :], (65, 71), mode="bilinear")
    torch.testing.assert_close(metric(image[..., :64, :]), metric(larger), rtol=2e-2, atol=0)


@pytest.mark.parametrize("options", [{"convention": "tf"}, {"crops": 0}, {"chunk": 0}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match="got"):
        MANIQA(**options)
