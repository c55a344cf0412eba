"""What TReS's files hold beside the weights."""

from __future__ import annotations

import torch

from mdiqa_metric.metrics.tres import TReS


def test_reads_past_the_pooling_windows_but_not_past_other_ones():
    window = torch.outer(torch.tensor([0.25, 0.5, 0.25]), torch.tensor([0.25, 0.5, 0.25])).expand(256, 1, 3, 3)
    state = {"fc.bias": torch.zeros(1), "L2pooling_l1.filter": window}
    assert TReS.from_published("", state) == {"head.0.bias": state["fc.bias"]}
    state["L2pooling_l1.filter"] = 2 * window
    assert "L2pooling_l1.filter" in TReS.from_published("", state)
