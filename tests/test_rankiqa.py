"""RankIQA's files: Caffe's own, and the one that is refused."""

from __future__ import annotations

import pytest
import torch

from mdiqa_metric import WeightsError, create


def test_the_file_of_which_lower_is_better_is_refused():
    state = {f"{name}.weight": torch.zeros(1) for name in ("conv1_1", "fc6", "fc7", "fc8")}
    with pytest.raises(WeightsError, match="FT_live"):
        create("rankiqa", weights=state)
