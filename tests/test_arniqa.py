"""The files that ARNIQA's authors publish: the backbone's, and the state dict of a regressor in TorchScript."""

from __future__ import annotations

import torch

import mdiqa_metric
from tests.rows import content, filled


def test_reads_the_authors_files(tmp_path):
    data = content("arniqa-authors")
    state = filled(data["checkpoint"], data)
    backbone = {key.replace("encoder.", "model."): state[key] for key in state if key.startswith("encoder.")}
    torch.save(backbone | {"projector.0.weight": torch.zeros(2, 2048)}, tmp_path / "ARNIQA.pth")
    regressor = {"weights": state["regressor.weight"].double(), "biases": state["regressor.bias"][0].double()}
    ours = mdiqa_metric.create("arniqa", weights={"backbone": tmp_path / "ARNIQA.pth", "regressor": regressor})
    expected = mdiqa_metric.create("arniqa", weights=state).state_dict()
    for key, value in ours.state_dict().items():
        assert torch.equal(value, expected[key])
