"""The patches whose scores PaQ-2-PiQ explains are pooled as torchvision's RoI pooling does it."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_pool

from mdiqa_metric import create
from tests.rows import metric_of, photograph, row_of


@pytest.mark.parametrize(("height", "width"), [(256, 320), (241, 300), (40, 52)])
@pytest.mark.parametrize("blocks", [1, 3, 20])
def test_patches_are_pooled_like_regions_of_interest(height, width, blocks):
    metric, image = metric_of(row_of("paq2piq")), photograph(height, width)
    rows, columns = (torch.linspace(0, side, blocks + 1) for side in (height, width))
    boxes = [
        [0, columns[j], rows[i], columns[j + 1], rows[i + 1]] for i in range(blocks) for j in range(blocks)
    ]  # image, left, top, right, bottom
    x = roi_pool(metric.backbone.last_features(image), torch.tensor(boxes), (2, 2), 1 / 32)
    expected = metric.head(torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1)).view(1, 1, blocks, blocks)
    metric.blocks, before = blocks, metric.blocks
    found = metric.explain(image).map
    metric.blocks = before
    torch.testing.assert_close(found, expected)
    if blocks == 1:
        torch.testing.assert_close(metric(image), found.flatten())


def test_a_patch_at_least():
    with pytest.raises(ValueError, match="1 block a side or more, got blocks=0"):
        create("paq2piq", weights=None, blocks=0)
