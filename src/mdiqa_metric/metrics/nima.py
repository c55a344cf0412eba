"""NIMA: how people's ratings of an image spread."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..backbones.base import FeatureBackbone
from ..backbones.inception_resnet_v2 import InceptionResNetV2
from ..backbones.torchvision import CHANNELS, torchvision_backbone
from ..checkpoints.remapping import PublishedState
from ..layers.score_head import ScoreHead
from ..metric import Metric
from ..ops.pooling import max_pool
from ..ops.precision import full_precision
from ..ops.resize import resize_shorter_side

# Side of the square that each backbone sees, and channels of its last map.
SIDES = {"inception_resnet_v2": 299, "vgg16": 224}
WIDTHS = {"inception_resnet_v2": InceptionResNetV2.channels[-1], "vgg16": CHANNELS["vgg16"][-1]}


class Explanation(NamedTuple):
    """What `NIMA.explain` expects people to say of N images.

    Attributes:
        distribution: the share of each rating from 1 to 10 (N, 10); shares add up to 1.
        mean: of the ratings (N,), which is the score.
        std: standard deviation of the ratings (N,), high where people disagree.
    """

    distribution: Tensor
    mean: Tensor
    std: Tensor


class NIMA(Metric):
    """No-reference aesthetic quality, higher is better: the mean of the ratings from 1 to 10 that people would give.

    The last map of a backbone is averaged, and a linear layer and a softmax predict the share p(r) of each rating; the
    score is `sum(r p(r))`. From "NIMA: neural image assessment" (Talebi and Milanfar, TIP 2018), whose weights were
    never published: these are pyiqa's, trained on AVA. Images (N, 3, H, W) are resized to a shorter side of 299 pixels
    (224 for VGG16), and the square in their center is rated. `explain` gives the shares, their mean and their standard
    deviation.

    Args:
        backbone: "inception_resnet_v2" or "vgg16".

    Raises:
        ValueError: an unknown backbone.

    Example:
        >>> metric = NIMA("vgg16").accept_untrained()
        >>> metric.explain(torch.rand(2, 3, 40, 50)).distribution.shape
        torch.Size([2, 10])
    """

    full_reference = False
    lower_is_better = False
    score_range = (1.0, 10.0)

    def __init__(self, backbone: Literal["inception_resnet_v2", "vgg16"] = "inception_resnet_v2") -> None:
        super().__init__()
        if backbone not in SIDES:
            raise ValueError(f"NIMA takes backbone 'inception_resnet_v2' or 'vgg16', got {backbone!r}.")
        self.kind, self.side = backbone, SIDES[backbone]
        self.resize = f"shorter side to {self.side}, antialiased bilinear"
        self.crop = "the square in the center"
        network: FeatureBackbone = InceptionResNetV2() if backbone != "vgg16" else torchvision_backbone("vgg16")
        self.backbone = network.to(memory_format=torch.channels_last)
        self.head = ScoreHead(WIDTHS[backbone], 10)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        return self.explanation(image, reference).mean

    def explanation(self, image: Tensor, reference: None) -> Explanation:
        """The shares of the ratings, their mean and deviation; see `Explanation`."""
        # Bilinear resizing keeps the range; a Loss may go beyond it.
        image = _center(resize_shorter_side(image, self.side, "bilinear", overshoot=True), self.side)
        for x in self.backbone.iter_features(image):
            last = x
        if self.kind == "vgg16":  # the map is taken after the pooling
            last = max_pool(last, 2, 2)
        logits = self.head(_mean(last))
        shares = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1)
        ratings = torch.arange(1, 11, device=shares.device)
        mean = (shares * ratings).sum(1)
        return Explanation(shares, mean, (shares * (ratings - mean[:, None]).square()).sum(1).sqrt())

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for pyiqa's files."""
        names = {
            r"base_model\.features_(\d+\..+)": r"backbone.features.\1",
            r"base_model\.(.+)": r"backbone.network.\1",
            r"classifier\.2\.(.+)": r"head.0.\1",
        }
        return PublishedState(state.get("params", state)).rename(names).state

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"backbone={self.kind}"


def _center(image: Tensor, side: int) -> Tensor:
    """The square of that side in the center of images (N, C, H, W), placed as torchvision's `CenterCrop` does."""
    top, left = (round((length - side) / 2) for length in image.shape[-2:])
    return image[..., top : top + side, left : left + side]


@full_precision
def _mean(x: Tensor) -> Tensor:
    """The mean over the pixels of maps (N, C, H, W): (N, C)."""
    return x.mean((2, 3))
