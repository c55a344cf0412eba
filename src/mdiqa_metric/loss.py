"""Any metric as a training loss, with the right sign, and weighted sums of named losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .frozen import Move
from .metric import EncodedReference, Metric
from .ops.autograd import is_recording_graph, is_transformed
from .ops.color import clamp_to_range
from .validation import check_weight

# A network's output may leave [0, 1] while it trains, but only an image in 0..255 strays this far.
IMAGE_MARGIN = 8.0
# Resizing overshoots by about a tenth; a reference in [-1, 1] goes further.
REFERENCE_MARGIN = 0.25


class Loss(nn.Module):
    """A metric as a training loss, a scalar that is lower for better images: `Loss(metric, weight)(image, reference)`.

    `weight * (distance(clamp(image), clamp(reference)) + width * mean(|image - clamp(image)|))`, where `clamp` limits
    values to [0, 1]. The distance is the batch mean of the gap between the score and the best possible score; without a
    best score it is the mean score, negated if higher is better. `width` is the width of the metric's range, or 1.

    Inputs: images (N, 3, H, W) of floats in [-8, 9], since networks overshoot while they train. An image is scored as
    it would be saved, clamped, and each stray value is pulled back with a gradient of `weight * width / numel`. Value
    and gradient are therefore finite, and an image outside [0, 1] never has a lower loss than its clamped self. 0..255
    and NaN are errors. References are in [0, 1], with 0.25 of tolerance for resizing; [-1, 1] is an error. Both may be
    created in inference mode. Range checks synchronize a GPU, so there they run on calls 1, 2, 4, 8...

    Derivatives: first ones always, also under `torch.func` (grad, vmap, jvp, jacrev; vmap checks the ranges of all
    images together). Second ones for metrics without a network and convolutional ones; with attention (TOPIQ, MDIQA,
    CLIP-IQA, AHIQ, IQT, TReS) only under `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`, and never for MDIQA's
    overall score: torch raises.

    Graphs: `torch.compile(fullgraph=True)`; `torch.export` with fixed sizes, or free ones by `Dim.AUTO` if the example
    is larger than the smallest image; `torch.jit.trace` for one size. In the first two an image out of range raises
    RuntimeError.

    The metric is frozen and in eval mode (see `Frozen`). `train()`, `requires_grad_()`, `apply()`, `parameters()`,
    `state_dict()` and DDP of a parent skip it; `.to()`, `deepcopy` and pickling include it.

    Example:
        >>> from mdiqa_metric import create
        >>> loss = Loss(create("ssim-rgb"), weight=0.5)
        >>> loss(torch.full((1, 3, 32, 32), 0.5), torch.full((1, 3, 32, 32), 0.5))
        tensor(0.)

    Raises:
        TypeError: `metric` is not a Metric.
        ValueError: the metric is not differentiable, or `weight` is not a finite number from 0 up.
    """

    def __init__(self, metric: Metric, weight: float = 1.0) -> None:
        super().__init__()
        if not isinstance(metric, Metric):
            raise TypeError(
                f"Loss takes a Metric, got {type(metric).__name__}: make one with mdiqa_metric.create(name)."
            )
        if not metric.differentiable:
            raise ValueError(f"{metric.name} has no honest gradient to train with: {metric.no_gradient}")
        self.metric = metric.freeze()
        self.weight = check_weight(weight, "Loss")
        self._calls = 0

    def forward(self, image: Tensor, reference: Tensor | EncodedReference | None = None) -> Tensor:
        """The loss, a scalar; the class docstring says which inputs it takes."""
        metric = self.metric
        image, reference = metric.prepare_inputs(image, reference)
        checks = self._checks_range(image)
        inside = checks and metric.check_range(image, "image", IMAGE_MARGIN)  # in that case nothing needs clamping
        if isinstance(reference, Tensor):
            known = checks and metric.check_range(reference, "reference", REFERENCE_MARGIN)
            reference = reference if known else clamp_to_range(reference)
        clamped = image if inside else clamp_to_range(image)
        mean = metric(clamped, reference, _checked=True).mean()
        lowest, highest = metric.score_range
        if metric.lower_is_better:
            distance = mean - lowest if math.isfinite(lowest) else mean
        else:
            distance = highest - mean if math.isfinite(highest) else -mean
        if not inside:
            width = highest - lowest if math.isfinite(highest - lowest) else 1.0
            distance = distance + width * (image - clamped).abs().mean(dtype=mean.dtype)
        return self.weight * distance

    def _checks_range(self, image: Tensor) -> bool:
        if is_recording_graph() or image.device.type == "cpu":
            return True
        self._calls += 1
        return self._calls & (self._calls - 1) == 0

    def extra_repr(self) -> str:
        """The weight."""
        return f"weight={self.weight}"


class WeightedLoss(nn.Module):
    """A weighted sum of named terms: `WeightedLoss({"pixel": (nn.L1Loss(), 1.0), "lpips": (Loss(lpips), 0.1)})`.

    A term is a `Loss`, or any module that returns a scalar for `term(image, reference)`; the `Loss` of a no-reference
    metric is called with the image alone. An `EncodedReference` fits one metric only, so `reference` may also be a
    dict that gives each term its own. Weights are numbers from 0 up, kept in float32 whatever the module is moved to; a
    term of weight 0 is still computed, so `last_values` tells its value. No state dict holds them: set them again on
    resuming.

    Raises:
        TypeError, ValueError: no terms, a term that is no module, a weight that is no finite number from 0 up, an
            unknown name, or a dict of references that lacks a term's.
    """

    def __init__(self, terms: Mapping[str, tuple[nn.Module, float]]) -> None:
        super().__init__()
        if not terms:
            raise ValueError('WeightedLoss takes at least one term, got none: give {"name": (loss, weight)}.')
        for name, pair in terms.items():
            if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], nn.Module)):
                raise TypeError(f'WeightedLoss takes {{"name": (loss module, weight)}}, got {pair!r} for "{name}".')
            if isinstance(pair[0], Metric):
                raise TypeError(f'The term "{name}" is a metric, which may rise as images get better: wrap it in Loss.')
        self.names = [str(name) for name in terms]
        if len({*self.names}) < len(self.names):
            raise ValueError(f"WeightedLoss takes a name for each term, got {', '.join(self.names)}: rename one.")
        self.terms = nn.ModuleList(term for term, _ in terms.values())  # a ModuleDict would refuse "lpips-v0.1"
        # No buffer: `bfloat16()`, `to_empty()` and DDP are not to touch what the user has set.
        self._weights = [_term_weight(name, weight) for name, (_, weight) in terms.items()]
        with torch.inference_mode(False):
            self.weights = torch.tensor(self._weights, dtype=torch.float32, device="cpu")
        self._last: Tensor | None = None

    def forward(self, image: Tensor, reference: Any = None) -> Tensor:
        """The weighted sum, a scalar; `reference` is a tensor, None, or a dict with a reference for each term."""
        by_name = isinstance(reference, Mapping)
        references = self._references(reference) if by_name else [reference] * len(self.names)
        values = torch.stack(
            [
                self._value(name, term, image, each)
                for name, term, each in zip(self.names, self.terms, references, strict=True)
            ]
        )
        self._last = None if is_transformed() else values.detach()
        return (values * self.weights.to(values.device)).sum()

    def set_weights(self, /, **weights: float) -> WeightedLoss:
        """Sets the weights of the named terms for the following calls, without recompiling; the others stay.

        Pass a name that is not a Python identifier as `loss.set_weights(**{"lpips-v0.1": 0.3})`.
        """
        changed = list(self._weights)
        for name, weight in weights.items():
            if name not in self.names:
                raise ValueError(f'There is no term "{name}": the terms are {", ".join(self.names)}.')
            changed[self.names.index(name)] = _term_weight(name, weight)
        self._weights = changed
        with torch.inference_mode(False):  # a new tensor: a graph yet to run backward holds the old one
            self.weights = torch.tensor(changed, dtype=torch.float32, device=self.weights.device)
        return self

    def last_values(self) -> dict[str, float]:
        """Each term's unweighted value at the last call. Reading them waits for the device; the call did not."""
        if self._last is None:
            raise RuntimeError("WeightedLoss has no values yet: call it once before last_values().")
        return dict(zip(self.names, self._last.tolist(), strict=True))

    def _references(self, given: Mapping[str, Any]) -> list[Any]:
        """The reference of each term, from a dict by name."""
        given = {str(name): reference for name, reference in given.items()}
        if unknown := [name for name in given if name not in self.names]:
            raise ValueError(
                f"References are given for {', '.join(unknown)}, and the terms are {', '.join(self.names)}: correct "
                "the names."
            )
        compares = [not (isinstance(term, Loss) and not term.metric.full_reference) for term in self.terms]
        if lacking := [name for name, needs in zip(self.names, compares, strict=True) if needs and name not in given]:
            raise ValueError(
                f"References are given for {', '.join(given) or 'no term'}, and {', '.join(lacking)} has "
                "none: give each term its own (None for one that takes the image alone), or one tensor for all."
            )
        return [given.get(name) for name in self.names]

    @staticmethod
    def _value(name: str, term: nn.Module, image: Tensor, reference: Any) -> Tensor:
        alone = reference is None or (isinstance(term, Loss) and not term.metric.full_reference)
        value = term(image) if alone else term(image, reference)
        if not isinstance(value, Tensor) or value.ndim:
            came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f'The term "{name}" gave {came}, expected a scalar tensor: take its mean.')
        return value.float()

    def _apply(self, fn: Move, recurse: bool = True) -> WeightedLoss:
        super()._apply(fn, recurse)
        with torch.inference_mode(False):
            self.weights = torch.tensor(self._weights, dtype=torch.float32, device=fn(self.weights).device)
        return self

    def extra_repr(self) -> str:
        """The terms' weights."""
        return ", ".join(f"{name}={weight:g}" for name, weight in zip(self.names, self._weights, strict=True))


def _term_weight(name: str, weight: Any) -> float:
    return check_weight(weight, f'The term "{name}"')
