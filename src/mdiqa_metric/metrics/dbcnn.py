"""DB-CNN: the products of what two networks see, one trained on objects and one on distortions."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.base import Backbone
from ..backbones.torchvision import CHANNELS, torchvision_backbone
from ..checkpoints.remapping import PublishedState, fold_batch_norm
from ..layers.convolution import FrozenConv2dReLU
from ..layers.score_head import ScoreHead
from ..metric import Metric
from ..ops.precision import full_precision

# Channels and strides of the convolutions of the network that was trained on distortions.
WIDTHS, STRIDES = (48, 48, 64, 64, 64, 64, 128, 128, 128), (1, 2, 1, 2, 1, 2, 1, 1, 2)


class DBCNN(Metric):
    """No-reference quality, higher is better; the published checkpoint of KonIQ-10k gives about 0 to 1.

    The products of the last maps of VGG16 and of a smaller network that was trained to tell distortions apart are
    averaged over the pixels of images (N, 3, H, W), channel by channel (512 x 128 values); a linear layer predicts the
    score from their roots, scaled to length 1. From "Blind image quality assessment using a deep bilinear convolutional
    neural network" (Zhang et al., TCSVT 2020).

    Example:
        >>> DBCNN().accept_untrained()(torch.rand(2, 3, 40, 50)).shape
        torch.Size([2])
    """

    full_reference = False
    lower_is_better = False
    score_range = (-math.inf, math.inf)
    min_size = 16  # smaller, VGG16's last map is empty

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision_backbone("vgg16").to(memory_format=torch.channels_last)
        self.distortions = SCNN()
        self.head = ScoreHead(CHANNELS["vgg16"][-1] * WIDTHS[-1], 1)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        for x in self.backbone.iter_features(image):
            objects = x
        return self.head(_unit_products(objects, self.distortions(image))).squeeze(1)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the published file."""
        published = PublishedState(state.get("params", state))
        small = published.under("features2.")
        norms = [key.removesuffix(".running_var") for key in small if key.endswith(".running_var")]
        small = fold_batch_norm(small, {norm: str(int(norm) - 1) for norm in norms})
        published.rename({r"features1\.(.+)": r"backbone.features.\1", r"fc\.(.+)": r"head.0.\1"})
        return published.state | {f"distortions.layers.{key}": value for key, value in small.items()}


class SCNN(Backbone):
    """Nine convolutions that were trained to tell 39 kinds and degrees of distortion apart, without the classifier.

    Batch normalization is folded into the convolutions.

    Example:
        >>> SCNN()(torch.rand(1, 3, 40, 50)).shape
        torch.Size([1, 128, 3, 4])
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, stride in zip(WIDTHS, STRIDES, strict=True):
            # Numbered as in the published file, where a normalization and a ReLU follow.
            layers += [FrozenConv2dReLU(channels, width, 3, stride, 1), nn.Identity(), nn.Identity()]
            channels = width
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] -> (N, 128, H / 16, W / 16), rounded up."""
        return self.layers(self.normalize(image))


@full_precision
def _unit_products(x: Tensor, y: Tensor) -> Tensor:
    """Roots of the mean products of the channels of two maps without negative values, scaled to length 1: (N, C D)."""
    if x.shape[-2:] != y.shape[-2:]:  # VGG16 rounds sides down
        y = F.interpolate(y, x.shape[-2:], mode="bilinear", align_corners=True)
    means = x.flatten(2) @ y.flatten(2).mT / x[0, 0].numel()
    return F.normalize((means.flatten(1) + 1e-8).sqrt())
