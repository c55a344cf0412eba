"""NIMA's gradient in float64, which its golden file, in float32, shows only roughly: many maxima lie close together."""

from __future__ import annotations

import pytest
import timm
import torch
from torchvision.transforms import functional as TF

from mdiqa_metric.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from tests.golden import golden
from tests.rows import content, filled, metric_of, row_of


def test_gradient_is_that_of_torchvisions_and_timms_functions():
    metric, data = metric_of(row_of("nima-vgg16")), content("nima-vgg16-ava")
    state = filled(data["checkpoint"], data)
    network = timm.create_model("vgg16", features_only=True).eval().double()
    network.load_state_dict({key.removeprefix("base_model."): state[key] for key in state if "features" in key})
    head = [state[f"classifier.2.{leaf}"].double() for leaf in ("weight", "bias")]

    def plain(image):
        x = TF.center_crop(TF.resize(image, metric.side, antialias=True), metric.side)
        x = network(TF.normalize(x, IMAGENET_MEAN, IMAGENET_STD))[-1].mean((2, 3))
        return (torch.nn.functional.linear(x, *head).softmax(1) * torch.arange(1, 11)).sum(1)

    image = torch.from_numpy(golden.picture(3, 75, 111))[None].double().requires_grad_()
    double = type(metric)("vgg16").double()
    double.side = metric.side
    double.load_state_dict(metric.state_dict())
    theirs, ours = plain(image), double(image)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    expected, gradient = (torch.autograd.grad(score.sum(), image)[0] for score in (theirs, ours))
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-6 * expected.abs().max().item())
