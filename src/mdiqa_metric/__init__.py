"""Image-quality metrics that are honest measures and good losses.

    metric = mdiqa_metric.create("stlpips-alex")      # a name becomes a loaded, frozen nn.Module
    metric(image, reference)                          # measure: (N, 3, H, W) in [0, 1] -> (N,)
    loss = mdiqa_metric.Loss(metric, weight=0.1)      # train: any metric as a sign-correct scalar

Importing this costs torch and little else: metric classes (`mdiqa_metric.LPIPS`) load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .checkpoints.files import WeightsError as WeightsError
from .loss import Loss as Loss
from .loss import WeightedLoss as WeightedLoss
from .metric import EncodedReference as EncodedReference
from .metric import Metric as Metric
from .multidimensional import DimensionDistance as DimensionDistance
from .multidimensional import DimensionMean as DimensionMean
from .multidimensional import MultiDimensional as MultiDimensional
from .registry import create as create
from .registry import list_metrics as list_metrics

if TYPE_CHECKING:
    from .data.images import read_image as read_image

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "read_image":
        from .data.images import read_image

        return read_image
    from .registry import metric_class, metric_classes

    if name in metric_classes():
        return metric_class(metric_classes()[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    from .registry import metric_classes

    return sorted([*(name for name in globals() if not name.startswith("_")), "read_image", *metric_classes()])
