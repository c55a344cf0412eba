"""Correlations of many resamples at once, and what they amount to; a number that cannot be had is a reason instead.

A resample of N pictures is how often it drew each of them: `counts`, (R, N). Counts of one are the pictures themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .extras import library

Array = npt.NDArray[np.float64]

_BLOCK = 2_000_000  # numbers in one array while resampling: 16 MB
_SMALL = 1_000  # up to here all pairs fit one matrix, and a product with it gives many resamples' tau at once
_FEWEST_FOR_INTERVAL = 10  # below, the percentiles of resamples are far too narrow to be called 95%


class Missing(str):
    """Why a number cannot be had, in the number's place."""


def with_reasons(result: dict[str, Any]) -> dict[str, Any]:
    """The result with None for each `Missing`, and a last key `reasons` that says why."""
    reasons = {key: str(value) for key, value in result.items() if isinstance(value, Missing)}
    return {key: None if key in reasons else value for key, value in result.items()} | {"reasons": reasons}


def check_pairs(**named: npt.ArrayLike) -> list[Array]:
    """The arrays as (N,) float64, in the order given.

    Raises:
        ValueError: not numbers, not (N,), not finite, or of different lengths.
    """
    arrays = {name: check_numbers(name, values) for name, values in named.items()}
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{len(array)} {name}" for name, array in arrays.items())
        raise ValueError(f"Each picture needs one number of each, got {lengths}.")
    return list(arrays.values())


def check_numbers(name: str, values: npt.ArrayLike) -> Array:
    """One array as (N,) float64; raises ValueError as `check_pairs` does."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} takes numbers, one a picture: {error}.") from error
    if array.ndim != 1:
        raise ValueError(f"{name} takes one number a picture, (N,), got the shape {array.shape}.")
    if strange := int((~np.isfinite(array)).sum()):
        raise ValueError(
            f"{name} takes finite numbers, got {strange} of {len(array)} that are not: leave these pictures out, and "
            "say so."
        )
    return array


def no_correlation(**named: Array) -> Missing | None:
    """Why these have no correlation, or None where they have."""
    for name, values in named.items():
        if len(values) < 3:
            return Missing(f"A correlation needs at least 3 pictures, got {len(values)}.")
        scaled = values / (np.abs(values).max() or 1)
        if np.ptp(scaled) <= 1e-13:  # no more than rounding makes
            return Missing(f"All {name} are {values[0]:.6g}: what does not vary has no correlation.")
    return None


def standardized(values: Array) -> Array:
    """Mean 0 and standard deviation 1, without overflow on the way."""
    scaled = values / np.abs(values).max()
    scaled = scaled - scaled.mean()
    return scaled / scaled.std()


def resampled(n: int, resamples: int, seed: int) -> Iterator[Array]:
    """`counts` of pictures drawn with replacement, in blocks of bounded memory."""
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK // n)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = random.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def spearman(counts: Array, x: Array, y: Array) -> Array:
    """Pearson's of average ranks, (R,), of x and y (N,); NaN where a resample drew equal values only."""
    return _weighted_pearson(counts, _ranks(counts, x), _ranks(counts, y))


def pearson(counts: Array, x: Array, y: Array) -> Array:
    """Pearson's correlation, (R,), of x and y (N,) of order 1; NaN where a resample drew equal values only."""
    return _weighted_pearson(counts, x[None], y[None])


def kendall(counts: Array, x: Array, y: Array) -> Array:
    """Kendall's tau-b, (R,), of x and y (N,); NaN where a resample drew equal values only."""
    if len(x) > _SMALL:
        tau = library("scipy.stats").kendalltau
        drawn = (np.repeat(np.arange(len(x)), row.astype(np.int64)) for row in counts)
        return np.array([tau(x[index], y[index], method="asymptotic").statistic for index in drawn])
    signs_x, signs_y = (np.sign(values[:, None] - values) for values in (x, y))
    concordance, untied_x, untied_y = (
        np.einsum("rn,rn->r", counts @ signs, counts) for signs in (signs_x * signs_y, signs_x**2, signs_y**2)
    )
    return _ratio(concordance, untied_x, untied_y)


def interval(drawn: Array, n: int) -> list[float] | Missing:
    """The middle 95% of what resamples of n pictures gave, those that gave nothing left out."""
    drawn = drawn[~np.isnan(drawn)]
    if n < _FEWEST_FOR_INTERVAL or len(drawn) == 0:
        return Missing(f"An interval needs at least {_FEWEST_FOR_INTERVAL} pictures that vary, got {n}.")
    return [float(end) for end in np.percentile(drawn, [2.5, 97.5])]


def _ranks(counts: Array, values: Array) -> Array:
    """Average ranks within each resample, (R, N); of a picture not drawn, the place where it would stand."""
    _, inverse = np.unique(values, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.flatnonzero(np.diff(inverse[order], prepend=-1))
    ties = np.add.reduceat(counts[:, order], starts, axis=1)
    return (np.cumsum(ties, axis=1) - (ties - 1) / 2)[:, inverse]


def _weighted_pearson(counts: Array, x: Array, y: Array) -> Array:
    n = counts.sum(axis=1, keepdims=True)
    x, y = (values - (counts * values).sum(axis=1, keepdims=True) / n for values in (x, y))
    covariance, variance_x, variance_y = ((counts * product).sum(axis=1) for product in (x * y, x * x, y * y))
    return _ratio(covariance, variance_x, variance_y)


def _ratio(shared: Array, one: Array, other: Array) -> Array:
    # Where all that was drawn is equal, a sum of squares is 0 but for rounding.
    defined = (one > 1e-20) & (other > 1e-20)
    result = np.full(len(shared), np.nan)
    result[defined] = shared[defined] / np.sqrt(one[defined] * other[defined])
    return result.clip(-1, 1)
