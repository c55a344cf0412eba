"""BRISQUE: blind/referenceless image spatial quality evaluator."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..metric import Metric
from ..ops.color import CHANNELS, round_8bit
from ..ops.distributions import fit_asymmetric_gaussian, fit_gaussian
from ..ops.natural_scene import NEIGHBORS, mean_factor
from ..ops.precision import full_precision
from ..ops.resize import shrink_matlab
from ..ops.statistics import local_normalization

FEATURES = 36
# The authors' kernel width, and the offset that pyiqa's file of support vectors goes with.
GAMMA, PYIQA_RHO = 0.05, -153.591
# Least and greatest of each feature in the authors' training images (their `allrange`), brought to -1 and 1.
LEAST = (
    *(0.338, 0.017204, 0.236, -0.123884, 0.000155, 0.001122, 0.244, -0.123586, 0.000152, 0.000975, 0.249, -0.135687),
    *(0.000174, 0.000913, 0.258, -0.143408, 0.000179, 0.000888, 0.471, 0.012809, 0.218, -0.094876, 1.5e-5, 0.001272),
    *(0.222, -0.115772, 1.6e-5, 0.001374, 0.227, -0.117188, 3e-5, 0.001122, 0.228, -0.12243, 2.8e-5, 0.001118),
)
GREATEST = (
    *(10.0, 0.806612, 1.642, 0.20293, 0.712298, 0.470257, 1.641, 0.179083, 0.710456, 0.470984, 1.555, 0.100858),
    *(0.684173, 0.534174, 1.561, 0.100486, 0.685696, 0.536508, 3.264, 0.703171, 1.046, 0.187459, 0.442057, 0.40803),
    *(1.042, 0.162604, 0.444362, 0.40243, 0.996, 0.098323, 0.531903, 0.369589, 0.99, 0.098658, 0.530092, 0.370399),
)


class BRISQUE(Metric):
    """Opinion score that a regression expects of an image's statistics (Mittal, Moorthy, Bovik, IEEE TIP 2012).

    36 features, of how normalized luminance and the products of its neighbors are distributed at two scales, go through
    a support vector regression that the authors trained on LIVE: about 0 to 100, unbounded, lower is better. An image
    without any structure has no score: it gives NaN.

    Args:
        channel: "gray", MATLAB's rgb2gray, as the authors' program has it; or "y-full", BT.601 luma, the convention of
            pyiqa and others. Both are rounded to 8 bits.

    Raises:
        ValueError: an unknown channel.

    Example:
        >>> from mdiqa_metric import create
        >>> create("brisque")(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1])
    """

    full_reference = False
    lower_is_better = True
    score_range = (-math.inf, math.inf)
    differentiable = False
    no_gradient = "it rounds to 8 bits and looks the shapes of distributions up in a table; use topiq-nr or mdiqa-lite."
    min_size = 16

    def __init__(self, channel: Literal["gray", "y-full"] = "y-full") -> None:
        super().__init__()
        if channel not in ("gray", "y-full"):
            raise ValueError(f"BRISQUE takes channel 'gray' or 'y-full', got {channel!r}.")
        self.channel = channel
        self.color = "MATLAB rgb2gray, 8 bits" if channel == "gray" else "Y BT.601 full range, rounded to 8 bits"
        self.vectors = nn.Parameter(torch.zeros(0, FEATURES))  # as many as the file has
        self.weights = nn.Parameter(torch.zeros(0))
        self.rho = nn.Parameter(torch.zeros(()))

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,), about 0 to 100."""
        features = self._features(image)
        low, high = (torch.tensor(bound, dtype=features.dtype, device=features.device) for bound in (LEAST, GREATEST))
        return _regress(2 * (features - low) / (high - low) - 1, self.vectors, self.weights, self.rho)

    def _features(self, image: Tensor) -> Tensor:
        """The features (N, 36)."""
        luma = round_8bit(CHANNELS[self.channel].convert(image)) * 255
        features: list[Tensor] = []
        for _ in range(2):
            normal = local_normalization(luma, 7, 7 / 6, border="constant")
            features += fit_gaussian(normal.flatten(1))
            for shift in NEIGHBORS:
                features += _product_features(normal * normal.roll(shift, (2, 3)))
            luma = shrink_matlab(luma, 2)
        return torch.stack(features, 1)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for a support vector machine's vectors, coefficients and offset."""
        if "sv" not in state:
            return dict(state)
        rho = state.get("rho", torch.tensor(PYIQA_RHO))
        return {"vectors": state["sv"], "weights": state["sv_coef"].flatten(), "rho": rho.reshape(())}

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name in ("vectors", "weights"):
            own, given = getattr(self, name), state_dict.get(prefix + name)
            if given is not None and len(given) != len(own):
                own.data = own.data.new_zeros(len(given), *own.shape[1:])
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """The option, for `repr` and `fingerprint`."""
        return f"channel={self.channel}"


def _product_features(products: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shape, mean, left and right variance of the distribution of neighbors' products (N, 1, H, W): (N,) each."""
    shape, left, right = fit_asymmetric_gaussian(products.flatten(1))
    width = (torch.lgamma(3 / shape) - torch.lgamma(1 / shape)).exp()  # from squared scale to variance
    return shape, (right - left) * mean_factor(shape), left.square() * width, right.square() * width


@full_precision
def _regress(features: Tensor, vectors: Tensor, weights: Tensor, rho: Tensor) -> Tensor:
    """`sum_i w_i exp(-gamma |f - v_i|^2) - rho` of features (N, 36): (N,)."""
    distances = (features[:, None] - vectors.to(features.dtype)).square().sum(2)
    return (-GAMMA * distances).exp() @ weights.to(features.dtype) - rho
