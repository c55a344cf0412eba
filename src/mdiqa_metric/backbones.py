"""Convolutional trunks that are walked tap by tap: normalised image in, feature maps out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from .ops.convolution import conv
from .ops.pooling import blur_pool, l2_pool, max_pool

# Mean and standard deviation of ImageNet's RGB in [0, 1], and the same of RGB in [-1, 1] as the LPIPS authors write it.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)

# Indices in torchvision's `features` of the ReLUs (of SqueezeNet: ReLU and Fire modules) that perceptual metrics tap.
TAPS = {"alexnet": (1, 4, 7, 9, 11), "vgg16": (3, 8, 15, 22, 29), "squeezenet1_1": (1, 4, 7, 9, 10, 11, 12)}
CHANNELS = {
    "alexnet": (64, 192, 384, 256, 256),
    "vgg16": (64, 128, 256, 512, 512),
    "squeezenet1_1": (64, 128, 256, 384, 384, 512, 512),
}

# The window of L2 pooling and of blur pooling.
BINOMIAL = ((1 / 16, 1 / 8, 1 / 16), (1 / 8, 1 / 4, 1 / 8), (1 / 16, 1 / 8, 1 / 16))


class Conv(nn.Conv2d):
    """A convolution that keeps nothing for backward while it is frozen."""

    relu = False

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D, H', W')."""
        return conv(x, self.weight, self.bias, self.stride[0], int(self.padding[0]), self.relu)


class ConvReLU(Conv):
    """A convolution and the ReLU behind it, that keeps a byte an output for backward while it is frozen."""

    relu = True


class MaxPool(nn.Module):
    """Max pooling that keeps no indices."""

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
    """Holds the 3 x 3 binomial window that L2 pooling and blur pooling weigh with."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.tensor(BINOMIAL), persistent=False)


class L2Pool(Binomial):
    """Half the size by L2 pooling."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        return l2_pool(x, self.window)


class BlurPool(Binomial):
    """Half the size after a blur."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        return blur_pool(x, self.window)


class Trunk(nn.Module):
    """Layers `features` with taps behind some of them.

    On a CPU maps are channels_last; `to(memory_format=torch.channels_last)` puts the weights so too, which gains some
    5 % where maps are small.

    Args:
        features: the layers; those behind the last tap are left out.
        taps: indices of the layers whose outputs are wanted, rising.
        mean, std: what a picture is normalised with.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, features: nn.Sequential, taps: Sequence[int], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.features = features[: taps[-1] + 1]
        self.taps = frozenset(taps)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def walk(self, image: Tensor) -> Iterator[Tensor]:
        """The tapped maps of pictures (N, 3, H, W), each computed when it is asked for.

        Two walks zipped together hold no more of a picture without gradients than one map.
        """
        x = (image - self.mean) / self.std
        if x.device.type == "cpu":  # oneDNN's direct layout; elsewhere the caller's choice stands
            x = x.contiguous(memory_format=torch.channels_last)
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                yield x

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """All tapped maps of pictures (N, 3, H, W)."""
        return tuple(self.walk(image))


def torchvision_trunk(
    name: str,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    pool: Callable[[], nn.Module] | None = None,
) -> Trunk:
    """torchvision's "alexnet", "vgg16" or "squeezenet1_1" without its classifier, untrained, tapped at `TAPS`.

    Its keys are torchvision's. `pool` makes what stands in the place of each max-pooling.
    """
    from torchvision import models

    with torch.device("meta"):  # the classifier, nine tenths of the weights, is never made
        features: nn.Sequential = getattr(models, name)(weights=None).features
    _lighten(features, pool)
    return Trunk(features, TAPS[name], mean, std)


def _lighten(network: nn.Module, pool: Callable[[], nn.Module] | None) -> None:
    """Puts the modules above in the place of poolings and of convolutions, all of which have a ReLU behind them."""
    for name, child in network.named_children():
        if isinstance(child, nn.Conv2d):
            stride, padding = child.stride[0], int(child.padding[0])
            made: nn.Module = ConvReLU(child.in_channels, child.out_channels, child.kernel_size[0], stride, padding)
        elif isinstance(child, nn.ReLU):
            made = nn.Identity()
        elif isinstance(child, nn.MaxPool2d):
            size, stride = cast(int, child.kernel_size), cast(int, child.stride)
            made = pool() if pool else MaxPool(size, stride, child.ceil_mode)
        else:
            _lighten(child, pool)
            continue
        setattr(network, name, made)


def published(state: Mapping[str, Tensor], names: Mapping[str, str], constants: Mapping[str, Any]) -> dict[str, Tensor]:
    """A published state dict under our keys.

    Args:
        state: the published tensors by name.
        names: patterns of their whole keys and what each becomes; other keys stay.
        constants: patterns of keys and the value, as nested tuples, that our code holds itself: a tensor of it, bar
            dimensions of size one and repetition, is left out. Another value stays, to be an error of loading.
    """
    ours: dict[str, Tensor] = {}
    for key, value in state.items():
        if any(re.fullmatch(pattern, key) and _holds(value, constant) for pattern, constant in constants.items()):
            continue
        renamed = next((m.expand(names[p]) for p in names if (m := re.fullmatch(p, key))), key)
        twice = renamed in ours and not torch.equal(value, ours[renamed])
        ours[key if twice else renamed] = value
    return ours


def _holds(value: Tensor, constant: Any) -> bool:
    return bool((value.squeeze() == torch.tensor(constant)).all())
