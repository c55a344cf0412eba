"""timm's Swin transformers, tapped after each stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from .base import FeatureBackbone


class Swin(FeatureBackbone):
    """A Swin transformer, whose windows are padded where an image is no multiple of them.

    From "Swin transformer: hierarchical vision transformer using shifted windows" (Liu et al., ICCV 2021). Keys below
    `features` are timm's with `features_only`.

    Args:
        model: timm's name of it, such as "swin_base_patch4_window12_384".

    Raises:
        RuntimeError: timm does not know the model.
    """

    features: Any

    def __init__(self, model: str) -> None:
        super().__init__()
        import timm

        self.features = timm.create_model(model, pretrained=False, features_only=True, strict_img_size=False)
        self.channels = tuple(self.features.feature_info.channels())

    def iter_features(self, image: Tensor) -> Iterator[Tensor]:
        """Maps (N, C, H / s, W / s), s being 4, 8, 16 and 32, of images (N, 3, H, W), all at once."""
        for maps in self.features(self.normalize(image)):
            yield maps.permute(0, 3, 1, 2)
