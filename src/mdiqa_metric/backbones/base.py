"""What every backbone has: how it normalizes an image, and feature maps that are computed when asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ..ops.autograd import is_transformed

# Mean and standard deviation of RGB in [0, 1] of ImageNet and of CLIP's images, and of RGB in [-1, 1] as the LPIPS
# authors write it.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Backbone(nn.Module):
    """A network that normalizes an image's channels first. Weights are untrained until a checkpoint is loaded.

    Args:
        mean, std: subtracted from the red, green and blue channel, and what they are then divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def normalize(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, W) with each channel normalized, in channels_last where that is faster."""
        x = (image - self.mean) / self.std
        # oneDNN's direct convolutions on a CPU take it; elsewhere the caller's layout stands. vmap knows no layouts.
        if x.device.type != "cpu" or is_transformed():
            return x
        return x.contiguous(memory_format=torch.channels_last)


class FeatureBackbone(Backbone, ABC):
    """A backbone that gives feature maps, or tokens, one after the other."""

    @abstractmethod
    def iter_features(self, image: Tensor) -> Iterator[Tensor]:
        """The feature maps of images (N, 3, H, W), largest first, each computed when it is asked for.

        Two such iterators zipped together hold no more than one map of each image where no gradient is needed.
        """

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """All feature maps of images (N, 3, H, W)."""
        return tuple(self.iter_features(image))


def batch_norms(network: nn.Module) -> dict[str, str]:
    """The name of each batch normalization of a network to that of the convolution that feeds it."""
    pairs, last = {}, ""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            last = name
        elif isinstance(module, nn.BatchNorm2d):
            pairs[name] = last
    return pairs


def without_batch_norm(network: nn.Module) -> nn.Module:
    """The network with a bias in each convolution in the place of the normalization that it feeds; untrained."""
    for norm, name in batch_norms(network).items():
        conv = cast(nn.Conv2d, network.get_submodule(name))
        conv.register_parameter("bias", nn.Parameter(torch.zeros(conv.out_channels)))
        network.set_submodule(norm, getattr(network.get_submodule(norm), "act", nn.Identity()))
    return network
