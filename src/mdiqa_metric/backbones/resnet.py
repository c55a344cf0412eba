"""ResNets with their batch normalization folded into the convolutions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.remapping import fold_batch_norm
from ..layers.checkpointing import maybe_checkpoint
from ..layers.convolution import FrozenConv2d, FrozenConv2dReLU
from ..ops.convolution import add_relu
from ..ops.pooling import max_pool
from .base import IMAGENET_MEAN, IMAGENET_STD, FeatureBackbone


class BasicBlock(nn.Module):
    """The residual block of ResNet-18, with batch normalization folded into its convolutions.

    `relu(conv2(conv1(x)) + downsample(x))`: (N, channels, H, W) -> (N, width, H / stride, W / stride).

    Example:
        >>> BasicBlock(channels=8, width=16, stride=2)(torch.rand(1, 8, 6, 6)).shape
        torch.Size([1, 16, 3, 3])
    """

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = FrozenConv2dReLU(channels, width, 3, stride, 1)
        self.conv2 = FrozenConv2d(width, width, 3, 1, 1)
        straight = stride == 1 and channels == width
        self.downsample = nn.Identity() if straight else nn.Sequential(FrozenConv2d(channels, width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width, H', W')."""
        return add_relu(self.conv2(self.conv1(x)), self.downsample(x))


class Bottleneck(nn.Module):
    """The residual block of ResNet-50, with batch normalization folded into its convolutions.

    `relu(conv3(conv2(conv1(x))) + downsample(x))`: (N, channels, H, W) -> (N, 4 * width, H / stride, W / stride).

    Example:
        >>> Bottleneck(channels=8, width=4, stride=2)(torch.rand(1, 8, 6, 6)).shape
        torch.Size([1, 16, 3, 3])
    """

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = FrozenConv2dReLU(channels, width, 1)
        self.conv2 = FrozenConv2dReLU(width, width, 3, stride, 1)
        self.conv3 = FrozenConv2d(width, 4 * width, 1)
        straight = stride == 1 and channels == 4 * width
        self.downsample = nn.Identity() if straight else nn.Sequential(FrozenConv2d(channels, 4 * width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4 * width, H', W')."""
        return add_relu(self.conv3(self.conv2(self.conv1(x))), self.downsample(x))


class ResNet(FeatureBackbone):
    """A ResNet without its classifier: feature maps after the stem and each of the four stages.

    From "Deep residual learning for image recognition" (He et al., CVPR 2016), with the stride in the 3 x 3
    convolutions, as in torchvision and timm. The maps have `channels`, at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size,
    rounded up. Batch normalization is folded into the convolutions, since every metric on this backbone freezes it.
    Keys are torchvision's without those of the normalization (see `from_torchvision_layout`).

    Args:
        checkpointing: saves only the stages' inputs for backward and recomputes the stages there.
        mean, std: normalization of the image.
    """

    block: ClassVar[type[BasicBlock | Bottleneck]]
    depths: ClassVar[tuple[int, int, int, int]]
    channels: ClassVar[tuple[int, int, int, int, int]]

    def __init__(
        self,
        checkpointing: bool = False,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__(mean, std)
        self.checkpointing = checkpointing
        self.conv1 = FrozenConv2dReLU(3, 64, 7, 2, 3)
        channels = 64
        for stage, depth in enumerate(self.depths):
            width, blocks = 64 << stage, []
            for index in range(depth):
                blocks.append(self.block(channels, width, 2 if stage and not index else 1))
                channels = self.block.expansion * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.to(memory_format=torch.channels_last)

    def iter_features(self, image: Tensor) -> Iterator[Tensor]:
        """The five maps of images (N, 3, H, W) in [0, 1], each computed when it is requested."""
        x = self.normalize(image)
        x = self.conv1(x)
        yield x
        # After a ReLU, padding with zeros equals padding with minus infinity.
        x = max_pool(F.pad(x, (1, 1, 1, 1)), 3, 2)
        for index in range(1, 5):
            stage = self.get_submodule(f"layer{index}")
            x = maybe_checkpoint(self.checkpointing, stage, x)
            yield x

    def last_features(self, image: Tensor) -> Tensor:
        """The last map of images (N, 3, H, W) in [0, 1]; the others are let go once they have been used."""
        for x in self.iter_features(image):
            last = x
        return last

    @staticmethod
    def sizes(height: int, width: int) -> tuple[int, int]:
        """Height and width of the last map.

        Example:
            >>> ResNet50.sizes(224, 300)
            (7, 10)
        """
        return -(-height // 32), -(-width // 32)

    @staticmethod
    def from_torchvision_layout(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps torchvision's state dict of this network to our keys and folds it; a classifier is dropped.

        Example:
            >>> from torchvision.models import resnet50
            >>> with torch.device("meta"):
            ...     ResNet50.from_torchvision_layout(resnet50().state_dict()).keys() == ResNet50().state_dict().keys()
            True
        """
        norms = [key.removesuffix(".running_var") for key in state if key.endswith(".running_var")]
        names = {norm: re.sub(r"downsample\.1$", "downsample.0", re.sub(r"bn(\d)$", r"conv\1", norm)) for norm in norms}
        return fold_batch_norm({key: value for key, value in state.items() if not key.startswith("fc.")}, names)

    @classmethod
    def from_children_layout(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`from_torchvision_layout` for a file of `nn.Sequential(*resnet.children())`, whose modules have numbers.

        Example:
            >>> from torchvision.models import resnet18
            >>> with torch.device("meta"):
            ...     state = nn.Sequential(*list(resnet18().children())[:-2]).state_dict()
            ...     ResNet18.from_children_layout(state).keys() == ResNet18().state_dict().keys()
            True
        """
        names = {"0": "conv1", "1": "bn1"} | {str(stage + 3): f"layer{stage}" for stage in range(1, 5)}
        parts = ((key.partition("."), value) for key, value in state.items())
        return cls.from_torchvision_layout({f"{names[part]}.{rest}": value for (part, _, rest), value in parts})


class ResNet18(ResNet):
    """ResNet-18; see `ResNet`.

    Example:
        >>> with torch.device("meta"):
        ...     maps = ResNet18()(torch.rand(1, 3, 64, 64))
        >>> [tuple(x.shape[1:]) for x in maps]
        [(64, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]
    """

    block = BasicBlock
    depths = (2, 2, 2, 2)
    channels = (64, 64, 128, 256, 512)


class ResNet50(ResNet):
    """ResNet-50; see `ResNet`.

    Example:
        >>> with torch.device("meta"):
        ...     maps = ResNet50()(torch.rand(1, 3, 64, 64))
        >>> [tuple(x.shape[1:]) for x in maps]
        [(64, 32, 32), (256, 16, 16), (512, 8, 8), (1024, 4, 4), (2048, 2, 2)]
    """

    block = Bottleneck
    depths = (3, 4, 6, 3)
    channels = (64, 256, 512, 1024, 2048)
