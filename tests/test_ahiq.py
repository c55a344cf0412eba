"""AHIQ on several crops, and its deformable convolution."""

from __future__ import annotations

import copy
import zipfile

import numpy as np
import torch
from torchvision.ops import deform_conv2d

from mdiqa_metric import Loss
from mdiqa_metric.checkpoints.states import read_state
from mdiqa_metric.metrics.ahiq import AHIQ
from mdiqa_metric.ops.deformable import deformable_conv
from mdiqa_metric.registry import manifest
from tests.rows import content, filled, metric_of, photograph, row_of


def test_deformable_convolution_is_torchvisions():
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 5, 7, 9), (2, 18, 7, 9), (3, 5, 3, 3), (3,))
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    tensors[1] = (4 * tensors[1]).detach().requires_grad_()  # many beyond the edges
    x, offsets, weight, bias = tensors
    ours, theirs = deformable_conv(*tensors), deform_conv2d(x, offsets, weight, bias, padding=1)
    torch.testing.assert_close(ours, theirs)
    grads = [torch.autograd.grad(out.square().sum(), tensors) for out in (ours, theirs)]
    torch.testing.assert_close(*grads)


def test_the_score_is_the_mean_over_crops_however_many_are_processed_at_a_time():
    metric = copy.deepcopy(metric_of(row_of("ahiq")))
    metric.crops = 4
    reference = photograph(41, 46)
    image = (0.9 * reference).requires_grad_()
    with torch.no_grad():
        alone = [
            metric(*(x[..., top : top + 32, left : left + 32] for x in (image, reference)))
            for top in (0, 4)
            for left in (0, 7)
        ]
    found = metric.explain(image.detach(), reference)
    assert found.map.shape == (1, 4, 4, 4)
    torch.testing.assert_close(found.weights.sum((2, 3)), torch.ones(1, 4))
    results = []
    for metric.chunk in (4, 3):
        score = metric(image, reference)
        results.append((score, *torch.autograd.grad(score, image)))
    torch.testing.assert_close(results[0][0], torch.stack(alone).mean(0))
    torch.testing.assert_close(*results)
    loss = Loss(metric)
    gradient = torch.func.grad(lambda x: loss(x, reference))(image.detach())
    torch.testing.assert_close(gradient.abs(), results[0][1].abs(), rtol=1e-4, atol=1e-6)
    assert metric.explain(reference[..., :32, :32], reference[..., :32, :32]).map.shape == (1, 1, 4, 4)


def test_a_checkpoint_as_the_authors_saved_it_is_read_without_running_code(tmp_path):
    """Beside tensors it holds what the optimizer knew and a loss of NumPy's, which older versions spelled otherwise."""
    state: dict = {"epoch": 33, "loss": np.float64(0.1), "optimizer_state_dict": {"state": {}}}
    shapes = {key: [1] for key in content("ahiq-authors-224")["checkpoint"]}
    for name in ("deform_net", "regressor"):
        keys = [key for key in shapes if key.startswith(name)]
        state[f"{name}_model_state_dict"] = {key.partition(".")[2]: torch.zeros(1) for key in keys}
    torch.save(state, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core", b"numpy.core"))
    read = read_state(tmp_path / "old.pth", manifest()["files"]["ahiq"]["allow"])
    ours = AHIQ.from_published("heads", read)
    assert ours.keys() == AHIQ.from_published("heads", filled(shapes, {})).keys()
    assert ours.keys() == metric_of(row_of("ahiq")).heads.state_dict().keys()
