"""Base classes of the backbones: normalization of images, and feature maps that are computed one at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ..ops.autograd import is_transformed

# Mean and standard deviation of ImageNet and of CLIP's images, RGB in [0, 1]; and LPIPS's values, for RGB in [-1, 1].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Backbone(nn.Module):
    """A network that first normalizes an image's channels, `(x - mean) / std`; untrained until a checkpoint is loaded.

    Args:
        mean, std: three values each, for red, green and blue.

    Example:
        >>> Backbone((0.5, 0.5, 0.5), (0.5, 0.5, 0.25)).normalize(torch.ones(1, 3, 1, 1)).flatten()
        tensor([1., 1., 2.])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def normalize(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, W) with each channel normalized; on a CPU in channels_last, which is faster there."""
        x = (image - self.mean) / self.std
        # oneDNN's direct convolutions need that layout; other devices keep the caller's. vmap has no layouts.
        if x.device.type != "cpu" or is_transformed():
            return x
        return x.contiguous(memory_format=torch.channels_last)


class FeatureBackbone(Backbone, ABC):
    """A backbone that returns several feature maps, or tokens, computed one after the other.

    Example:
        >>> class Identity(FeatureBackbone):
        ...     def iter_features(self, image):
        ...         yield self.normalize(image)
        >>> [x.shape for x in Identity()(torch.rand(1, 3, 8, 8))]
        [torch.Size([1, 3, 8, 8])]
    """

    @abstractmethod
    def iter_features(self, image: Tensor) -> Iterator[Tensor]:
        """The feature maps of images (N, 3, H, W), largest first, each computed when it is requested.

        Where no gradient is needed, iterating over two images' maps in step holds only one map of each in memory.
        """

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """All feature maps of images (N, 3, H, W), as a tuple."""
        return tuple(self.iter_features(image))


def batch_norms(network: nn.Module) -> dict[str, str]:
    """The name of each batch normalization of a network, mapped to that of the convolution that feeds it.

    Modules must be registered in the order in which they run.

    Example:
        >>> batch_norms(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
        {'1': '0'}
    """
    pairs, last = {}, ""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            last = name
        elif isinstance(module, nn.BatchNorm2d):
            pairs[name] = last
    return pairs


def without_batch_norm(network: nn.Module) -> nn.Module:
    """Replaces each batch normalization by a bias in the convolution that feeds it, in place; returns the network.

    Made for loading folded weights; the current ones become meaningless. Activations inside timm's normalizations stay.

    Example:
        >>> without_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)))[1]
        Identity()
    """
    for norm, name in batch_norms(network).items():
        conv = cast(nn.Conv2d, network.get_submodule(name))
        conv.register_parameter("bias", nn.Parameter(torch.zeros(conv.out_channels)))
        network.set_submodule(norm, getattr(network.get_submodule(norm), "act", nn.Identity()))
    return network
