"""Metrics with named quality dimensions, and the two forms of them that make good losses."""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from .frozen import Move
from .layers.attention import select
from .metric import EncodedReference, Metric
from .validation import RANGE_TOLERANCE, as_number

Indices = tuple[int, ...]
Self = TypeVar("Self", bound="MultiDimensional")


class MultiDimensional(Metric, ABC):
    """A no-reference metric that scores named dimensions, higher is better, and an overall quality out of them.

    `set_weights` says how much each dimension counts, at any step. A dimension of weight 0 for all images is not
    computed. Subclasses write `score` (the overall), `dimension_scores`, `dimension_features` and `instance_weights`.

    Attributes:
        dimension_names: the dimensions, in the order of every tensor of D values here.
        dimension_range: the lowest and the highest score of a dimension there can be.
        dimension_weights: a buffer (D,), or (N, D) with a row an image, that no state dict holds; see `set_weights`.
        active: the indices of the dimensions whose weight is not 0 for all images, rising.
    """

    full_reference = False
    lower_is_better = False
    dimension_names: tuple[str, ...]
    dimension_range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    dimension_weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        ones = torch.ones(len(self.dimension_names), dtype=torch.float32)
        self.register_buffer("dimension_weights", ones, persistent=False)
        self.active: Indices = self.every_dimension

    def dimensions(self, image: Tensor) -> Tensor:
        """Scores (N, D) of images (N, 3, H, W) in [0, 1], independent of the weights.

        Raises:
            TypeError, ValueError: the images are not what the metric takes; the text says what came and the mend.
        """
        image, _ = self.prepare_inputs(image, None)
        self.check_range(image, "image", RANGE_TOLERANCE)
        return self.dimension_scores(image, self.every_dimension)

    def set_weights(self: Self, weights: Tensor | Sequence[float] | None = None, **factors: float) -> Self:
        """Sets how much each dimension counts in the following calls; returns the metric.

        A compiled graph is reused, except when a weight becomes 0 or stops being 0: a dimension of weight 0 is not
        computed, so it is not part of the graph.

        Args:
            weights: all of them, (D,), or (N, D) for batches of N images.
            factors: weights by name, as in `set_weights(sharpness=2.0, noisiness=0.5)`; the others keep theirs.

        Raises:
            ValueError: an unknown name (the dimensions are listed), another shape, a weight that is negative or not
                finite, or an image whose weights are all 0.

        Example:
            >>> from mdiqa_metric import create
            >>> metric = create("mdiqa-lite").set_weights(sharpness=2.0, noisiness=0.5)
            >>> metric.dimension_weights
            tensor([1.0000, 1.0000, 1.0000, 0.5000, 2.0000])
        """
        with torch.inference_mode(False):  # a new tensor: a graph yet to run backward holds the old one
            return self._replace_weights(weights, factors)

    def _replace_weights(self: Self, weights: Tensor | Sequence[float] | None, factors: Mapping[str, float]) -> Self:
        changed = self.dimension_weights.clone()
        count, names = len(self.dimension_names), ", ".join(self.dimension_names)
        if weights is not None:
            changed = torch.as_tensor(weights, dtype=changed.dtype, device=changed.device).detach().clone()
            if changed.ndim not in (1, 2) or changed.shape[-1] != count:
                raise ValueError(
                    f"{self.name} takes weights ({count},) or (N, {count}), got {tuple(changed.shape)}: give one for "
                    f"each of {names}."
                )
        for name, factor in factors.items():
            if name not in self.dimension_names:
                near = difflib.get_close_matches(name, self.dimension_names, 1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ValueError(f'{self.name} has no dimension "{name}": the {count} are {names}.{hint}')
            weight = as_number(factor, f'{self.name}\'s dimension "{name}"')
            # through a tensor, where what is beyond float32 becomes infinite and is told below
            changed[..., self.dimension_names.index(name)] = torch.tensor(
                weight, dtype=torch.float64, device="cpu"
            ).float()
        if not (changed.isfinite().all() and (changed >= 0).all() and changed.any(-1).all()):
            raise ValueError(
                f"{self.name} takes finite weights from 0 up, not all 0 for an image, got {changed.tolist()}: use 0 "
                "to leave a dimension out."
            )
        self.dimension_weights = changed
        self.active = tuple(changed.reshape(-1, count).any(0).nonzero().flatten().tolist())
        return self

    def _apply(self: Self, fn: Move, recurse: bool = True) -> Self:
        weights = self.dimension_weights
        super()._apply(fn, recurse)
        self.dimension_weights = weights.to(self.dimension_weights.device)  # stays float32: it is the user's setting
        return self

    def user_weights(self, image: Tensor) -> Tensor:
        """The current weights (N, D) for the images."""
        weights, count = self.dimension_weights, image.shape[0]  # len() would fix the batch size of an exported graph
        if weights.ndim == 2 and len(weights) != count:
            raise ValueError(
                f"{self.name} has weights for batches of {len(weights)} images, got {count}: call set_weights() "
                "for this batch."
            )
        return weights.expand(count, -1)

    @property
    def every_dimension(self) -> Indices:
        """The indices of all dimensions."""
        return tuple(range(len(self.dimension_names)))

    @abstractmethod
    def dimension_scores(self, image: Tensor, wanted: Indices) -> Tensor:
        """Scores (N, K) of the wanted dimensions of checked images."""

    @abstractmethod
    def dimension_features(self, image: Tensor, wanted: Indices) -> Tensor:
        """Tokens (K, N, T, C) from which the scores of the K wanted dimensions are computed."""

    @abstractmethod
    def instance_weights(self, image: Tensor) -> Tensor:
        """The metric's own weights of the dimensions in these images: (N, D), from 0 up."""

    def settings(self) -> str:
        """The options and the current weights, for `fingerprint`."""
        weights = torch.atleast_2d(self.dimension_weights).tolist()
        rows = "; ".join(" ".join(f"{weight:g}" for weight in row) for row in weights)
        return f"{self.extra_repr()}, dimension weights {rows}"


class DimensionMean(Metric):
    """The weighted mean of a metric's dimension scores: the form that steers a restoration network.

    `sum(weight * score) / sum(weight)` per image, higher is better. A larger weight always gives its dimension a larger
    share of the gradient. The overall score does not guarantee that, since it is a network of the weighted scores.

    Args:
        model: the metric whose dimensions are scored. `set_weights` of either one sets the weights of both.

    Raises:
        TypeError: `model` has no dimensions.

    Example:
        >>> from mdiqa_metric import Loss, create
        >>> steer = Loss(DimensionMean(create("mdiqa-lite").set_weights(sharpness=2.0)), weight=0.1)
        >>> steer(torch.rand(1, 3, 64, 64)).shape
        torch.Size([])
    """

    full_reference = False
    lower_is_better = False
    score_range = (-math.inf, math.inf)

    def __init__(self, model: MultiDimensional) -> None:
        super().__init__()
        self.model = _wrap(self, model, "mean")
        self.score_range = model.dimension_range

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        weights = select(self.model.user_weights(image), self.model.active, 1)
        return (weights * self.model.dimension_scores(image, self.model.active)).sum(1) / weights.sum(1)

    def set_weights(self, weights: Tensor | Sequence[float] | None = None, **factors: float) -> DimensionMean:
        """Sets the model's weights; see `MultiDimensional.set_weights`."""
        self.model.set_weights(weights, **factors)
        return self

    def settings(self) -> str:
        """The model's, for `fingerprint`."""
        return self.model.settings()


class DimensionDistance(Metric):
    """How far an image's dimension features are from its reference's, 0 where both are equal, in [0, inf).

    The mean absolute difference of the features, each dimension's multiplied by its weight and by what the metric
    makes of it in this image (`instance_weights`, without gradient, and used for the reference too). From "MDIQA:
    unified image quality assessment for multi-dimensional evaluation and restoration" (Yao et al., 2025), whose
    published program multiplies by the weights twice; here they count once.

    Args:
        model: the metric whose features are compared; its `set_weights` (or this one's, which is the same) steers both.

    Raises:
        TypeError: `model` has no dimensions.
    """

    full_reference = True
    lower_is_better = True
    score_range = (0.0, math.inf)

    def __init__(self, model: MultiDimensional) -> None:
        super().__init__()
        self.model = _wrap(self, model, "distance")

    def score(self, image: Tensor, reference: Tensor | EncodedReference) -> Tensor:
        """Scores (N,)."""
        active = self.model.active
        with torch.no_grad():
            weights = self.model.user_weights(image) * self.model.instance_weights(image)
        ours = self.model.dimension_features(image, self.model.active)
        if isinstance(reference, EncodedReference):
            theirs = select(reference.features[0], active)
        else:
            theirs = self.model.dimension_features(reference, self.model.active)
        apart = (ours.to(image.dtype) - theirs.to(image.dtype)).abs().mean((2, 3))
        return (select(weights, active, 1).mT * apart).sum(0) / weights.shape[1]

    def features(self, image: Tensor) -> Iterator[Tensor]:
        """The features (D, N, T, C) of every dimension, so that weights may change after `encode`."""
        yield self.model.dimension_features(image, self.model.every_dimension)

    def set_weights(self, weights: Tensor | Sequence[float] | None = None, **factors: float) -> DimensionDistance:
        """Sets the model's weights; see `MultiDimensional.set_weights`."""
        self.model.set_weights(weights, **factors)
        return self

    def settings(self) -> str:
        """The model's, for `fingerprint`."""
        return self.model.settings()

    def extra_repr(self) -> str:
        """The model, for `repr` and for encoded references."""
        return f"{type(self.model).__name__}({self.model.extra_repr()})"


def _wrap(form: Metric, model: Any, suffix: str) -> MultiDimensional:
    """The model, after the form that wraps it was given its state, name and facts."""
    if not isinstance(model, MultiDimensional):
        raise TypeError(
            f'{type(form).__name__} takes a metric with dimensions, got {type(model).__name__}: pass create("mdiqa").'
        )
    form.training, form._frozen = model.training, model._frozen
    form._trained = True  # it has no weights besides the model's
    form.name, form.min_size = f"{model.name}-{suffix}", model.min_size
    form.color, form.resize, form.crop = model.color, model.resize, model.crop
    return model
