"""torchvision's AlexNet, VGG16 and SqueezeNet, with the feature maps that perceptual metrics compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ..layers.convolution import FrozenConv2dReLU
from ..ops.pooling import blur_pool, l2_pool, max_pool
from .base import IMAGENET_MEAN, IMAGENET_STD, FeatureBackbone

# Indices in torchvision's `features` of the layers whose outputs are compared: ReLUs, and SqueezeNet's Fire modules.
TAPS = {"alexnet": (1, 4, 7, 9, 11), "vgg16": (3, 8, 15, 22, 29), "squeezenet1_1": (1, 4, 7, 9, 10, 11, 12)}
CHANNELS = {
    "alexnet": (64, 192, 384, 256, 256),
    "vgg16": (64, 128, 256, 512, 512),
    "squeezenet1_1": (64, 128, 256, 384, 384, 512, 512),
}

# The window of L2 pooling and of blur pooling.
BINOMIAL = ((1 / 16, 1 / 8, 1 / 16), (1 / 8, 1 / 4, 1 / 8), (1 / 16, 1 / 8, 1 / 16))


class MaxPool(nn.Module):
    """Max pooling that saves no indices for backward: (N, C, H, W) -> (N, C, H', W'); see `ops.pooling.max_pool`.

    Example:
        >>> MaxPool(3, stride=2)(torch.rand(1, 4, 9, 9)).shape
        torch.Size([1, 4, 4, 4])
    """

    def __init__(self, size: int, stride: int, ceil_mode: bool = False) -> None:
        super().__init__()
        self.size, self.stride, self.ceil_mode = size, stride, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        return max_pool(x, self.size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        """The options, for `repr`."""
        return f"{self.size}, stride={self.stride}, ceil_mode={self.ceil_mode}"


class Binomial(nn.Module):
    """Holds the 3 x 3 binomial window, `(1, 2, 1)^T (1, 2, 1) / 16`, of L2 pooling and blur pooling.

    Example:
        >>> Binomial().window.sum()
        tensor(1.)
    """

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.tensor(BINOMIAL), persistent=False)


class L2Pool(Binomial):
    """L2 pooling to half the size, rounded up, with a binomial window; see `ops.pooling.l2_pool`.

    Example:
        >>> L2Pool()(torch.rand(1, 4, 9, 9)).shape
        torch.Size([1, 4, 5, 5])
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        return l2_pool(x, self.window)


class BlurPool(Binomial):
    """Blur pooling to half the size, rounded up, plus 1, with a binomial window; see `ops.pooling.blur_pool`.

    Example:
        >>> BlurPool()(torch.rand(1, 4, 9, 9)).shape
        torch.Size([1, 4, 6, 6])
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        return blur_pool(x, self.window)


class TappedBackbone(FeatureBackbone):
    """A sequence of layers, some of whose outputs are the feature maps.

    On a CPU the maps are channels_last. `to(memory_format=torch.channels_last)` stores the weights in that layout too,
    which is about 5 % faster where maps are small.

    Args:
        features: the layers; those after the last tap are dropped.
        taps: indices of the layers whose outputs are returned, in ascending order.
        mean, std: normalization of the image.

    Example:
        >>> layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), MaxPool(2, 2))
        >>> [x.shape for x in TappedBackbone(layers, (1, 2), IMAGENET_MEAN, IMAGENET_STD)(torch.rand(1, 3, 4, 4))]
        [torch.Size([1, 8, 4, 4]), torch.Size([1, 8, 2, 2])]
    """

    def __init__(
        self, features: nn.Sequential, taps: Sequence[int], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__(mean, std)
        self.features = features[: taps[-1] + 1]
        self.taps = frozenset(taps)

    def iter_features(self, image: Tensor) -> Iterator[Tensor]:
        """The tapped maps of images (N, 3, H, W), each computed when it is requested."""
        x = self.normalize(image)
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                yield x


def torchvision_backbone(
    name: str,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    pool: Callable[[], nn.Module] | None = None,
) -> TappedBackbone:
    """torchvision's "alexnet", "vgg16" or "squeezenet1_1" without its classifier, untrained, tapped at `TAPS`.

    AlexNet: Krizhevsky (arXiv 2014); VGG16: Simonyan and Zisserman (ICLR 2015); SqueezeNet 1.1: Iandola et al. (arXiv
    2016). The maps have the channels that `CHANNELS` lists; keys are torchvision's.

    Args:
        name: the network.
        mean, std: normalization of the image.
        pool: builds a replacement for each max pooling.

    Example:
        >>> [tuple(x.shape[1:]) for x in torchvision_backbone("alexnet")(torch.rand(1, 3, 64, 64))]
        [(64, 15, 15), (192, 7, 7), (384, 3, 3), (256, 3, 3), (256, 3, 3)]
    """
    from torchvision import models

    with torch.device("meta"):  # never allocates the classifier, most of AlexNet and VGG16
        features: nn.Sequential = getattr(models, name)(weights=None).features
    _lighten(features, pool)
    return TappedBackbone(features, TAPS[name], mean, std)


def _lighten(network: nn.Module, pool: Callable[[], nn.Module] | None) -> None:
    """Replaces poolings, and convolutions with the ReLU that follows each, by the modules above."""
    for name, child in network.named_children():
        if isinstance(child, nn.Conv2d):
            stride, padding = child.stride[0], int(child.padding[0])
            made: nn.Module = FrozenConv2dReLU(
                child.in_channels, child.out_channels, child.kernel_size[0], stride, padding
            )
        elif isinstance(child, nn.ReLU):
            made = nn.Identity()
        elif isinstance(child, nn.MaxPool2d):
            size, stride = cast(int, child.kernel_size), cast(int, child.stride)
            made = pool() if pool else MaxPool(size, stride, child.ceil_mode)
        else:
            _lighten(child, pool)
            continue
        setattr(network, name, made)
