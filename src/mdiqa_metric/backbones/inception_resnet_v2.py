"""Inception-ResNet-v2, as timm implements it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .base import FeatureBackbone


class InceptionResNetV2(FeatureBackbone):
    """Inception-ResNet-v2 without its classifier, with seven feature maps.

    From "Inception-v4, Inception-ResNet and the impact of residual connections on learning" (Szegedy et al., AAAI
    2017). Images of at least 75 x 75 pixels are normalized to [-1, 1]. Keys below `network` are timm's. Batch
    normalization is not folded, so the network must be in eval mode, as in every frozen metric.
    """

    network: Any

    channels = (320, 320, 320, 320, 320, 320, 1536)

    def __init__(self) -> None:
        super().__init__((0.5,) * 3, (0.5,) * 3)
        import timm

        self.network = timm.create_model("inception_resnet_v2", pretrained=False, num_classes=0, global_pool="")
        self.to(memory_format=torch.channels_last)

    def iter_features(self, image: Tensor) -> Iterator[Tensor]:
        """Maps of images (N, 3, H, W) in [0, 1], each computed when it is requested.

        First six of 320 channels at about 1/8 of the size, after `mixed_5b` and every second "block35", as IQT
        compares them. Then the last map before pooling, of 1536 channels at about 1/32 of the size.
        """
        network = self.network
        x = self.normalize(image)
        for name in ("conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_3b", "conv2d_4a", "maxpool_5a"):
            x = network.get_submodule(name)(x)
        x = network.mixed_5b(x)
        yield x
        for index, block in enumerate(network.repeat):
            x = block(x)
            if index % 2:
                yield x
        for name in ("mixed_6a", "repeat_1", "mixed_7a", "repeat_2", "block8", "conv2d_7b"):
            x = network.get_submodule(name)(x)
        yield x
