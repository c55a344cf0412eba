"""timm's Swin transformers, with a feature map after each stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from .base import FeatureBackbone


class Swin(FeatureBackbone):
    """A Swin transformer for images of any size in whole patches of 4 pixels; incomplete windows are padded.

    From "Swin transformer: hierarchical vision transformer using shifted windows" (Liu et al., ICCV 2021). Keys below
    `features` are timm's with `features_only`; `channels` lists those of the four maps.

    Args:
        model: timm's name of it, such as "swin_base_patch4_window12_384".

    Raises:
        RuntimeError: timm does not know the model.
        AssertionError: raised by `forward` for a side that is not a multiple of 4.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     maps = Swin("swin_tiny_patch4_window7_224")(torch.rand(1, 3, 64, 64))
        >>> [tuple(x.shape[1:]) for x in maps]
        [(96, 16, 16), (192, 8, 8), (384, 4, 4), (768, 2, 2)]
    """

    features: Any

    def __init__(self, model: str) -> None:
        super().__init__()
        import timm

        self.features = timm.create_model(model, pretrained=False, features_only=True, strict_img_size=False)
        self.channels = tuple(self.features.feature_info.channels())

    def iter_features(self, image: Tensor) -> Iterator[Tensor]:
        """Maps of images (N, 3, H, W) in [0, 1], at 1/4, 1/8, 1/16 and 1/32 of the size, all computed at once."""
        for maps in self.features(self.normalize(image)):
            yield maps.permute(0, 3, 1, 2)
