"""timm's vision transformers, with the tokens after chosen blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .base import IMAGENET_MEAN, IMAGENET_STD, FeatureBackbone


class ViT(FeatureBackbone):
    """A vision transformer for images of any size in whole patches; returns the tokens after chosen blocks.

    From "An image is worth 16x16 words" (Dosovitskiy et al., ICLR 2021). Position embeddings are interpolated to the
    image's grid of patches (antialiased bicubic, as timm does). Keys below `network` are timm's.

    Args:
        model: timm's name of it, such as "vit_base_patch8_224".
        taps: the blocks whose tokens are returned, counted from 0; blocks after the last one are dropped.
        mean, std: normalization of the image.

    Raises:
        RuntimeError, ValueError: timm does not know the model, or it lacks a tapped block.
        AssertionError: raised by `forward` for a side that is not a multiple of the patch's.

    Example:
        >>> with torch.device("meta"):
        ...     tokens = ViT("vit_tiny_patch16_224", taps=(1, 3))(torch.rand(1, 3, 32, 64))
        >>> [x.shape for x in tokens]
        [torch.Size([1, 9, 192]), torch.Size([1, 9, 192])]
    """

    network: Any

    def __init__(
        self,
        model: str,
        taps: Sequence[int],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__(mean, std)
        import timm

        self.network = timm.create_model(model, pretrained=False, num_classes=0, dynamic_img_size=True)
        depth = len(self.network.blocks)
        if not taps or max(taps) >= depth or min(taps) < 0:
            raise ValueError(f"{model} has the blocks 0 to {depth - 1}, got taps {tuple(taps)}: choose among these.")
        self.taps = tuple(sorted(taps))
        self.network.blocks = self.network.blocks[: self.taps[-1] + 1]
        self.network.norm = nn.Identity()  # tokens come from before it

    def iter_features(self, image: Tensor) -> Iterator[Tensor]:
        """Tokens (N, 1 + T, C) after each tapped block, the class token first, of images (N, 3, H, W) in [0, 1].

        T is the number of patches; H and W are multiples of a patch's side.
        """
        tokens = self.network.forward_intermediates(
            self.normalize(image).contiguous(),
            indices=list(self.taps),
            return_prefix_tokens=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        for patches, prefix in tokens:
            yield torch.cat([prefix, patches], 1)
