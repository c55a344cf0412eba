"""The two standard logistic curves from scores to opinions, fitted by least squares."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..optional import import_optional
from .correlations import Array, check_pairs, no_correlation

_EVALUATIONS = 1_000
# Limits per interquartile range of the scores: below, the curve is practically a line, above, a step.
_SLOPES = (0.02, 50.0)


class Fit(NamedTuple):
    """A fitted curve.

    Attributes:
        name: "logistic4" or "logistic5".
        parameters: (b1, b2, ...) of the published formula, in the units of the scores and opinions; empty if the fit
            failed.
        predicted: the curve at each score, (N,); NaN if the fit failed.
        converged: whether the fit succeeded.
        reason: why the fit ended.
    """

    name: str
    parameters: tuple[float, ...]
    predicted: Array
    converged: bool
    reason: str

    def curve(self, scores: npt.ArrayLike) -> Array:
        """Maps scores of any shape to opinions. Call it only if the fit converged."""
        x = np.asarray(scores, np.float64)
        if self.name == "logistic4":
            b1, b2, b3, b4 = self.parameters
            return b2 + (b1 - b2) * _sigmoid((x - b3) / abs(b4))
        b1, b2, b3, b4, b5 = self.parameters
        return b1 * (_sigmoid(b2 * (x - b3)) - 0.5) + b4 * x + b5


def logistic4(scores: npt.ArrayLike, mos: npt.ArrayLike) -> Fit:
    """Fits the 4-parameter logistic b2 + (b1 - b2) / (1 + exp(-(x - b3) / |b4|)) to scores and opinions (N,).

    Least squares on scores shifted by their median and divided by their interquartile range. Slope and center are found
    by the Nelder-Mead method, started from the best point of a grid around the median and the spread; b1 and b2 enter
    linearly and are solved exactly at each step. The curve is monotone, rising or falling like the data.
    Source: VQEG, final report, phase I (2000).

    Returns:
        The fit. A fit that is impossible or fails raises nothing; see `Fit.converged` and `Fit.reason`.

    Raises:
        ValueError: the inputs are not two finite arrays (N,) of one length.

    Example:
        >>> x = np.linspace(-3, 3, 20)
        >>> fit = logistic4(x, 1 / (1 + np.exp(-x)))
        >>> fit.converged, fit.predicted[[0, -1]].round(2)
        (True, array([0.05, 0.95]))
    """
    x, y = check_pairs(scores=scores, mos=mos)
    return _fit("logistic4", x, y)[0]


def logistic5(scores: npt.ArrayLike, mos: npt.ArrayLike) -> Fit:
    """Fits the 5-parameter logistic b1 (1/2 - 1 / (1 + exp(b2 (x - b3)))) + b4 x + b5 to scores and opinions (N,).

    Fitted as `logistic4`, which is the case b4 = 0. That curve is one of the starting points, so the fit is never
    worse. The linear term can make the curve non-monotone. Source: Sheikh, Sabir and Bovik, "A statistical evaluation
    of recent full reference image quality assessment algorithms", IEEE Transactions on Image Processing (2006).

    Returns:
        The fit. A fit that is impossible or fails raises nothing; see `Fit.converged` and `Fit.reason`.

    Raises:
        ValueError: the inputs are not two finite arrays (N,) of one length.

    Example:
        >>> logistic5([1, 2, 3], [1, 2, 3]).reason
        '3 images cannot determine 5 parameters: at least 6 are needed.'
    """
    x, y = check_pairs(scores=scores, mos=mos)
    return _fit("logistic5", x, y)[0]


def logistic_fits(scores: npt.ArrayLike, mos: npt.ArrayLike) -> tuple[Fit, Fit]:
    """Fits `logistic4` and `logistic5` to the same scores and opinions (N,); faster than calling both.

    Raises:
        ValueError: the inputs are not two finite arrays (N,) of one length.

    Example:
        >>> x = np.linspace(-3, 3, 20)
        >>> [fit.name for fit in logistic_fits(x, 1 / (1 + np.exp(-x)))]
        ['logistic4', 'logistic5']
    """
    x, y = check_pairs(scores=scores, mos=mos)
    first, descent = _fit("logistic4", x, y)
    return first, _fit("logistic5", x, y, descent)[0]


def _fit(name: str, x: Array, y: Array, descent: Any = None) -> tuple[Fit, Any]:
    """The fit, and the optimizer's result without the linear term, which may be passed in as `descent`."""
    many = int(name[-1])
    failed = Fit(name, (), np.full(len(x), np.nan), False, "")
    if missing := no_correlation(scores=x, mos=y):
        return failed._replace(reason=str(missing)), None
    if len(x) <= many:
        reason = f"{len(x)} images cannot determine {many} parameters: at least {many + 1} are needed."
        return failed._replace(reason=reason), None
    with np.errstate(all="ignore"):  # overflow ends as a failed fit
        low, middle, high = (float(quartile) for quartile in np.percentile(x, [25, 50, 75]))
        # The quartiles are robust to outliers. If most images share one score, use the standard deviation.
        spread = high - low if high - low > 1e-12 * max(-low, high) else float(x.std())
        u, v = (x - middle) / spread, (y - y.mean()) / y.std()
        if not np.isfinite([u, v]).all():
            reason = "The scores or the opinions are too large or too small to be fitted."
            return failed._replace(reason=reason), None
        descent = descent or _descend(u, v, tilted=False)
        found = _descend(u, v, tilted=True, start=descent.x) if many == 5 else descent
        if not found.success:
            return failed._replace(reason=f"No convergence within {_EVALUATIONS} evaluations."), descent
        parameters = _in_field_units(found.x, u, v, many == 5, (middle, spread), (float(y.mean()), float(y.std())))
        fit = Fit(name, parameters, failed.predicted, True, "Converged: the squared residuals no longer fall.")
        fit = fit._replace(predicted=fit.curve(x))
        if not np.isfinite([*parameters, *fit.predicted]).all():
            return failed._replace(reason="The fit ended in numbers that are not finite."), descent
    return fit, descent


def _descend(u: Array, v: Array, tilted: bool, start: Array | None = None) -> Any:
    """SciPy's result for (log slope, center); the linear parameters are eliminated (Golub and Pereyra 1973)."""

    def cost(shape: Array) -> float:
        return float((_solve(shape, u, v, tilted)[1] ** 2).mean())

    width = float(np.ptp(u))
    low, high = np.array([np.log(_SLOPES), (u.min() - width, u.max() + width)]).T
    centers = np.quantile(u, (0.5, 0.05, 0.25, 0.75, 0.95))
    grid = [np.array([np.log(slope), center]) for slope in (1, 4, 16) for center in centers]
    best = min(grid if start is None else [start, *grid], key=cost)
    # The cost of a steep curve is rough, which misleads gradients but not a two-dimensional simplex.
    simplex = np.clip(best + np.array([[0, 0], [0.5, 0], [0, 0.25]]), low, high)
    options = {"initial_simplex": simplex, "maxfev": _EVALUATIONS, "xatol": 1e-3, "fatol": 1e-10}
    return import_optional("scipy.optimize").minimize(
        cost, best, method="Nelder-Mead", bounds=np.stack([low, high], axis=1), options=options
    )


def _solve(shape: Array, u: Array, v: Array, tilted: bool) -> tuple[Array, Array]:
    """The best (level, height[, tilt]) for a slope and center, and the residuals."""
    sigmoid = _sigmoid(np.exp(shape[0]) * (u - shape[1]))
    columns = np.stack([np.ones_like(u), sigmoid, u] if tilted else [np.ones_like(u), sigmoid], axis=1)
    linear = np.asarray(np.linalg.lstsq(columns, v, rcond=1e-10)[0], np.float64)
    return linear, columns @ linear - v


def _in_field_units(
    shape: Array, u: Array, v: Array, tilted: bool, x_unit: tuple[float, float], y_unit: tuple[float, float]
) -> tuple[float, ...]:
    level, height, *tilt = (float(value) for value in _solve(shape, u, v, tilted)[0])
    slope, (middle, spread), (mean, std) = float(np.exp(shape[0])), x_unit, y_unit
    b3 = middle + spread * float(shape[1])
    if not tilted:
        return (mean + std * (level + height), mean + std * level, b3, spread / slope)
    b5 = mean + std * (level + height / 2 - tilt[0] * middle / spread)
    return (std * height, slope / spread, b3, std * tilt[0] / spread, b5)


def _sigmoid(z: Array) -> Array:
    return _expit()(z)


@functools.cache  # called a hundred times per fit
def _expit() -> Callable[[Array], Array]:
    return import_optional("scipy.special").expit
