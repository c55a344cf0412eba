"""Correlations of many resamples at once, and what they amount to; a number that cannot be had is a reason instead.

A resample of N images is how often it drew each of them: `counts`, (R, N). Counts of one are the images themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_BLOCK = 200_000  # numbers in one array while resampling: 1.6 MB, which a core's cache holds
_RUN = 128  # values whose pairs are counted by one matrix product; runs of them are merged
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
        raise ValueError(f"Each image needs one number of each, got {lengths}.")
    return list(arrays.values())


def check_numbers(name: str, values: npt.ArrayLike) -> Array:
    """One array as (N,) float64; raises ValueError as `check_pairs` does."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} takes numbers, one an image: {error}.") from error
    if array.ndim != 1:
        raise ValueError(f"{name} takes one number an image, (N,), got the shape {array.shape}.")
    if strange := int((~np.isfinite(array)).sum()):
        raise ValueError(
            f"{name} takes finite numbers, got {strange} of {len(array)} that are not: leave these images out, and "
            "say so."
        )
    return array


def no_correlation(**named: Array) -> Missing | None:
    """Why these have no correlation, or None where they have."""
    for name, values in named.items():
        if len(values) < 3:
            return Missing(f"A correlation needs at least 3 images, got {len(values)}.")
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
    """`counts` of images drawn with replacement, in blocks of bounded memory."""
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK // n)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = random.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


class Column:
    """Values (N,) and their order, worked out once for any number of resamples."""

    def __init__(self, values: Array) -> None:
        self.values = values
        self.places = np.unique(values, return_inverse=True)[1]  # the same for equal values
        self.order = np.argsort(self.places, kind="stable")
        self.starts = _starts(self.places[self.order])

    def ranks(self, counts: Array) -> Array:
        """Average ranks within each resample, (R, N); of an image not drawn, the place where it would stand."""
        ties = np.add.reduceat(counts[:, self.order], self.starts, axis=1)
        return (np.cumsum(ties, axis=1) - (ties - 1) / 2)[:, self.places]


def spearman(counts: Array, x: Array, y: Array) -> Array:
    """Pearson's of average ranks, (R,), of x and y (N,); NaN where a resample drew equal values only."""
    return pearson(counts, Column(x).ranks(counts), Column(y).ranks(counts))


def pearson(counts: Array, x: Array, y: Array) -> Array:
    """Pearson's correlation, (R,), of x and y, (N,) or (R, N), of order 1; NaN where all values drawn are equal."""
    n = counts.sum(axis=1, keepdims=True)
    x, y = (values - (counts * values).sum(axis=1, keepdims=True) / n for values in (x, y))
    covariance, variance_x, variance_y = ((counts * product).sum(axis=1) for product in (x * y, x * x, y * y))
    return _ratio(covariance, variance_x, variance_y)


def kendall(counts: Array, x: Array, y: Array) -> Array:
    """Kendall's tau-b, (R,), of x and y (N,); NaN where a resample drew equal values only."""
    return Kendall(Column(x), Column(y))(counts)


class Kendall:
    """Kendall's tau-b of two columns (N,), their pairs arranged once for any number of resamples.

    Discordant pairs are counted as Knight does (A computer method for calculating Kendall's tau with ungrouped data,
    JASA 1966), by merging runs that rise in y, over all resamples at once: order is that of the values, whatever is
    drawn.
    """

    def __init__(self, x: Column, y: Column) -> None:
        self.y = y
        self.order = np.lexsort((y.places, x.places))
        by_x, by_y = x.places[self.order], y.places[self.order]
        self.x_starts, self.both_starts = _starts(by_x), _starts(by_x, by_y)
        n, index = len(by_y), np.arange(len(by_y))
        runs = -(-n // _RUN)
        self.padding = runs * _RUN - n
        filled = np.append(by_y, np.full(self.padding, n)).reshape(runs, _RUN)
        self.discordant = np.tril(filled[:, None, :] > filled[:, :, None]).astype(np.float64)
        # Of each merge: where its left and right values lie, in falling order of y, the right ones first among equals,
        # and between which of the left ones those of the same pair of runs and a larger y lie.
        self.merges = []
        width = _RUN
        while width < n:
            falling = np.lexsort((-(index // width), -by_y, index // (2 * width)))
            right = falling // width % 2 == 1
            before = np.append(0, np.cumsum(~right))
            start = before[falling[right] // (2 * width) * (2 * width)]
            self.merges.append((falling[~right], falling[right], start, before[:-1][right]))
            width *= 2

    def __call__(self, counts: Array) -> Array:
        """The tau-b of each resample, (R,)."""
        by_x = np.ascontiguousarray(counts.T)
        by_y = by_x[self.y.order]
        by_x = by_x[self.order]
        runs = np.pad(by_x, ((0, self.padding), (0, 0))).reshape(-1, _RUN, len(counts))
        discordant = np.einsum("bnr,bnr->r", self.discordant @ runs, runs)
        for left, right, start, stop in self.merges:
            sums = np.pad(np.cumsum(by_x[left], axis=0), ((1, 0), (0, 0)))
            discordant += np.einsum("nr,nr->r", by_x[right], sums[stop] - sums[start])
        tied_x, tied_y = _tied_pairs(by_x, self.x_starts), _tied_pairs(by_y, self.y.starts)
        n = by_x.sum(axis=0)
        pairs = n * (n - 1) / 2
        concordant_less_discordant = pairs - tied_x - tied_y + _tied_pairs(by_x, self.both_starts) - 2 * discordant
        return _ratio(concordant_less_discordant, pairs - tied_x, pairs - tied_y)


def interval(drawn: Array, n: int) -> list[float] | Missing:
    """The middle 95% of what resamples of n images gave, those that gave nothing left out."""
    drawn = drawn[~np.isnan(drawn)]
    if n < _FEWEST_FOR_INTERVAL or len(drawn) == 0:
        return Missing(f"An interval needs at least {_FEWEST_FOR_INTERVAL} images that vary, got {n}.")
    return [float(end) for end in np.percentile(drawn, [2.5, 97.5])]


def _starts(*columns: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Where equal rows of sorted columns begin."""
    changes = np.any([np.diff(column, prepend=-1) != 0 for column in columns], axis=0)
    return np.flatnonzero(changes)


def _tied_pairs(counts: Array, starts: npt.NDArray[np.intp]) -> Array:
    """The pairs within each group of images, of counts (N, R), over all groups."""
    sizes = np.add.reduceat(counts, starts, axis=0)
    return np.einsum("nr,nr->r", sizes, sizes - 1) / 2


def _ratio(shared: Array, one: Array, other: Array) -> Array:
    # Where all that was drawn is equal, a sum of squares is 0 but for rounding.
    defined = (one > 1e-20) & (other > 1e-20)
    result = np.full(len(shared), np.nan)
    result[defined] = shared[defined] / np.sqrt(one[defined] * other[defined])
    return result.clip(-1, 1)
