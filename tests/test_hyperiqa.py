"""The crops that HyperIQA is the mean of."""

from __future__ import annotations

import pytest
import torch

from mdiqa_metric import create
from tests.rows import photograph


def test_crops_are_told_and_may_be_drawn():
    image = photograph(240, 256)
    grid, drawn = (create("hyperiqa", weights=None, crops=2, seed=seed, chunk=1) for seed in (None, 3))
    drawn.load_state_dict(grid.state_dict())
    found = drawn.explain(image)
    assert grid.explain(image).places.tolist() == [[0, 0], [0, 32]]
    assert drawn.explain(image).places.tolist() == found.places.tolist() != [[0, 0], [0, 32]]
    torch.testing.assert_close(drawn(image), found.scores.mean(1))
    assert not torch.equal(drawn(image), grid(image))
    for options, match in (({"crops": 0}, "1 crop or more"), ({"convention": "paper"}, "'native' or 'authors'")):
        with pytest.raises(ValueError, match=match):
            create("hyperiqa", weights=None, **options)
