"""Any metric as a training loss: a frozen judge, the right sign, and named weighted terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from .metric import Encoded, Metric

# A network may leave [0, 1] while it learns, but only a picture in 0..255 strays this far.
IMAGE_MARGIN = 8.0
# Resizing overshoots by a tenth or so; a reference in [-1, 1] goes further.
REFERENCE_MARGIN = 0.25


class Loss(nn.Module):
    """A metric as a scalar that falls when the picture gets better: `Loss(metric, weight)(image, reference)`.

    The value is `weight` times the batch mean of the distance to the best score there can be, or of the score itself
    (negated where higher is better) for a metric without a bound. Arguments are those of `Metric.forward`, but the
    image may leave [0, 1] while it is optimised; 0..255 and NaN are still errors, and so is a reference in [-1, 1].
    Range checks stall a GPU, so there they run on calls 1, 2, 4, 8...

    The metric is held outside the module tree: `train()`, `requires_grad_()`, `apply()`, `parameters()`,
    `state_dict()` and DDP of any parent pass it by, while `.to()`, `deepcopy` and pickling take it along. It is put in
    eval mode and frozen here.

    Raises:
        TypeError: `metric` is not a Metric.
        ValueError: the metric has no honest gradient, or `weight` is not a finite number.
    """

    metric: Metric

    def __init__(self, metric: Metric, weight: float = 1.0) -> None:
        super().__init__()
        if not isinstance(metric, Metric):
            raise TypeError(
                f"Loss takes a Metric, got {type(metric).__name__}: make one with mdiqa_metric.create(name)."
            )
        if not metric.differentiable:
            raise ValueError(f"{metric.name} has no honest gradient to train with: {metric.no_gradient}")
        self.__dict__["metric"] = metric.eval().requires_grad_(False)
        self.weight = _finite(weight, "Loss")
        self._calls = 0

    def forward(self, image: Tensor, reference: Tensor | Encoded | None = None) -> Tensor:
        """The loss, a scalar; see the class for what it takes."""
        metric = self.metric
        image, reference = metric.check(image, reference)
        if self._checks_range(image):
            metric.check_range(image, "image", IMAGE_MARGIN)
            if isinstance(reference, Tensor):
                metric.check_range(reference, "reference", REFERENCE_MARGIN)
        mean = metric.scored(image, reference).mean()
        lowest, highest = metric.score_range
        if metric.lower_is_better:
            return self.weight * (mean - lowest if math.isfinite(lowest) else mean)
        return self.weight * (highest - mean if math.isfinite(highest) else -mean)

    def _checks_range(self, image: Tensor) -> bool:
        if torch.compiler.is_compiling() or image.device.type == "cpu":
            return True
        self._calls += 1
        return self._calls & (self._calls - 1) == 0

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Loss:
        super()._apply(fn, recurse)
        self.metric._apply(fn)
        return self

    def extra_repr(self) -> str:
        """The judge's name and the weight."""
        return f"{self.metric.name}, weight={self.weight}"


class WeightedLoss(nn.Module):
    """A weighted sum of named terms: `WeightedLoss({"pixel": (nn.L1Loss(), 1.0), "lpips": (Loss(lpips), 0.1)})`.

    A term is a `Loss` or any module called as `term(image, reference)` that returns a scalar; a `Loss` of a
    no-reference metric gets the image alone. An `Encoded` reference fits one metric only, so `reference` may also be a
    dict that gives each term its own.

    Raises:
        TypeError, ValueError: no terms, a term that is no module, a weight that is no finite number, an unknown name.
    """

    weights: Tensor

    def __init__(self, terms: Mapping[str, tuple[nn.Module, float]]) -> None:
        super().__init__()
        if not terms:
            raise ValueError('WeightedLoss takes at least one term, got none: give {"name": (loss, weight)}.')
        for name, pair in terms.items():
            if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], nn.Module)):
                raise TypeError(f'WeightedLoss takes {{"name": (loss module, weight)}}, got {pair!r} for "{name}".')
        self.terms = nn.ModuleDict({name: term for name, (term, _) in terms.items()})
        values = [_finite(weight, f'The term "{name}"') for name, (_, weight) in terms.items()]
        self.register_buffer("weights", torch.tensor(values), persistent=False)
        self._last: Tensor | None = None

    def forward(self, image: Tensor, reference: Any = None) -> Tensor:
        """The weighted sum, a scalar; `reference` is a tensor, None, or a dict from a term's name to what it takes."""
        values = torch.stack(
            [
                self._value(term, image, reference[name] if isinstance(reference, dict) else reference)
                for name, term in self.terms.items()
            ]
        )
        self._last = values.detach()
        return (values * self.weights).sum()

    def weigh(self, **weights: float) -> WeightedLoss:
        """Sets the weights of the named terms from the next call on; the others stay. No compiled graph is remade."""
        names = list(self.terms)
        changed = self.weights.clone()  # a graph that is still to run backward holds the old tensor
        for name, weight in weights.items():
            if name not in names:
                raise ValueError(f'There is no term "{name}": the terms are {", ".join(names)}.')
            changed[names.index(name)] = _finite(weight, f'The term "{name}"')
        self.weights = changed
        return self

    def last(self) -> dict[str, float]:
        """Each term's unweighted value at the last call; this reading, not the call, waits for the device."""
        if self._last is None:
            raise RuntimeError("WeightedLoss has no values yet: call it once before last().")
        return dict(zip(self.terms, self._last.tolist(), strict=True))

    @staticmethod
    def _value(term: nn.Module, image: Tensor, reference: Any) -> Tensor:
        if reference is None or (isinstance(term, Loss) and not term.metric.full_reference):
            return cast(Tensor, term(image)).float()
        return cast(Tensor, term(image, reference)).float()

    def extra_repr(self) -> str:
        """The terms' weights."""
        return ", ".join(f"{name}={weight:g}" for name, weight in zip(self.terms, self.weights.tolist(), strict=True))


def _finite(weight: Any, owner: str) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise ValueError(f"{owner} takes a finite number as weight, got {weight!r}.")
    return float(weight)
