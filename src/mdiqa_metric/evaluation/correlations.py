"""Correlations of many bootstrap resamples at once, and their intervals. An undefined number is a `Missing`.

R resamples of N images are represented by `counts` (R, N): how often each image was drawn. All ones is the original
sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_BLOCK = 200_000  # numbers in one array while resampling: 1.6 MB, which fits in a core's cache
_RUN = 128  # values per run: pairs within a run are counted by a matrix product, then runs are merged
_FEWEST_FOR_INTERVAL = 10  # with fewer images the percentile interval covers far less than 95%


class Missing(str):
    """The reason why a number is undefined, in place of that number.

    Example:
        >>> with_reasons({"srcc": Missing("too few images")})
        {'srcc': None, 'reasons': {'srcc': 'too few images'}}
    """


def with_reasons(result: dict[str, Any]) -> dict[str, Any]:
    """Replaces each `Missing` in a result by None and adds the key `reasons` with the texts; see `Missing`."""
    reasons = {key: str(value) for key, value in result.items() if isinstance(value, Missing)}
    return {key: None if key in reasons else value for key, value in result.items()} | {"reasons": reasons}


def check_pairs(**named: npt.ArrayLike) -> list[Array]:
    """Converts arrays to (N,) float64, in the order given.

    Raises:
        ValueError: an array is not numeric, not (N,) or not finite, or the lengths differ.

    Example:
        >>> check_pairs(scores=[1, 2], mos=[3, 4])
        [array([1., 2.]), array([3., 4.])]
    """
    arrays = {name: check_numbers(name, values) for name, values in named.items()}
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{len(array)} {name}" for name, array in arrays.items())
        raise ValueError(f"Each image needs one number of each kind, got {lengths}.")
    return list(arrays.values())


def check_numbers(name: str, values: npt.ArrayLike) -> Array:
    """Converts one array to (N,) float64; raises ValueError as `check_pairs` does."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} takes numbers, one an image: {error}.") from error
    if array.ndim != 1:
        raise ValueError(f"{name} takes one number per image, (N,), got the shape {array.shape}.")
    if strange := int((~np.isfinite(array)).sum()):
        raise ValueError(
            f"{name} takes finite numbers, got {strange} of {len(array)} that are not: leave these images out, and "
            "say so."
        )
    return array


def no_correlation(**named: Array) -> Missing | None:
    """The reason why arrays (N,) have no correlation (too few values, or all equal), or None if they have one.

    Example:
        >>> no_correlation(scores=np.array([1.0, 1.0, 1.0]))
        'All scores are 1: what does not vary has no correlation.'
    """
    for name, values in named.items():
        if len(values) < 3:
            return Missing(f"A correlation needs at least 3 images, got {len(values)}.")
        scaled = values / (np.abs(values).max() or 1)
        if np.ptp(scaled) <= 1e-13:  # only rounding
            return Missing(f"All {name} are {values[0]:.6g}: what does not vary has no correlation.")
    return None


def standardized(values: Array) -> Array:
    """Scales to mean 0 and standard deviation 1, without overflow in between.

    Example:
        >>> standardized(np.array([1.0, 3.0]))
        array([-1.,  1.])
    """
    scaled = values / np.abs(values).max()
    scaled = scaled - scaled.mean()
    return scaled / scaled.std()


def resampled(n: int, resamples: int, seed: int) -> Iterator[Array]:
    """Yields the `counts` of images drawn with replacement, in blocks of bounded memory.

    Example:
        >>> (counts,) = resampled(3, resamples=2, seed=0)
        >>> counts.sum(axis=1)
        array([3., 3.])
    """
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK // n)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = random.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


class Column:
    """Values (N,) and their order, sorted once for any number of resamples.

    Example:
        >>> Column(np.array([5.0, 7.0, 5.0])).ranks(np.ones((1, 3)))
        array([[1.5, 3. , 1.5]])
    """

    def __init__(self, values: Array) -> None:
        self.values = values
        self.places = np.unique(values, return_inverse=True)[1]  # equal values share a place
        self.order = np.argsort(self.places, kind="stable")
        self.starts = _starts(self.places[self.order])

    def ranks(self, counts: Array) -> Array:
        """Average ranks within each resample, (R, N); an image that was not drawn gets the rank it would have."""
        ties = np.add.reduceat(counts[:, self.order], self.starts, axis=1)
        return (np.cumsum(ties, axis=1) - (ties - 1) / 2)[:, self.places]


def spearman(counts: Array, x: Array, y: Array) -> Array:
    """Spearman's rank correlation of x and y (N,) in each resample, (R,); NaN if all values drawn are equal.

    Example:
        >>> spearman(np.ones((1, 3)), np.array([1.0, 2.0, 9.0]), np.array([3.0, 2.0, 1.0]))
        array([-1.])
    """
    return pearson(counts, Column(x).ranks(counts), Column(y).ranks(counts))


def pearson(counts: Array, x: Array, y: Array) -> Array:
    """Pearson's correlation of x and y, (N,) or (R, N), in each resample, (R,); NaN if all values drawn are equal.

    Values should be of order 1, as from `standardized`.

    Example:
        >>> pearson(np.ones((1, 3)), np.array([-1.0, 0.0, 1.0]), np.array([-2.0, 0.0, 2.0]))
        array([1.])
    """
    n = counts.sum(axis=1, keepdims=True)
    x, y = (values - (counts * values).sum(axis=1, keepdims=True) / n for values in (x, y))
    covariance, variance_x, variance_y = ((counts * product).sum(axis=1) for product in (x * y, x * x, y * y))
    return _ratio(covariance, variance_x, variance_y)


def kendall(counts: Array, x: Array, y: Array) -> Array:
    """Kendall's tau-b of x and y (N,) in each resample, (R,); NaN if all values drawn are equal.

    Example:
        >>> kendall(np.ones((1, 3)), np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])).round(3)
        array([0.333])
    """
    return Kendall(Column(x), Column(y))(counts)


class Kendall:
    """Kendall's tau-b of two columns (N,), with pairs sorted once for any number of resamples; see `kendall`.

    Discordant pairs are counted by merging runs sorted by y, as in Knight, "A computer method for calculating Kendall's
    tau with ungrouped data", JASA (1966). All resamples are counted at once, since the order does not depend on what is
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
        # For each merge: the indices of its left and right values, in falling order of y with ties right first, and
        # for each right value the range of left values of the same pair of runs with a larger y.
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
        """The tau-b in each resample, (R,)."""
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
    """The 95% percentile interval of values (R,) drawn from n images, ignoring NaN.

    Example:
        >>> [round(end, 3) for end in interval(np.linspace(0, 1, 1000), n=20)]
        [0.025, 0.975]
    """
    drawn = drawn[~np.isnan(drawn)]
    if n < _FEWEST_FOR_INTERVAL or len(drawn) == 0:
        return Missing(f"An interval needs at least {_FEWEST_FOR_INTERVAL} images that vary, got {n}.")
    return [float(end) for end in np.percentile(drawn, [2.5, 97.5])]


def _starts(*columns: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The start of each group of equal rows in sorted columns."""
    changes = np.any([np.diff(column, prepend=-1) != 0 for column in columns], axis=0)
    return np.flatnonzero(changes)


def _tied_pairs(counts: Array, starts: npt.NDArray[np.intp]) -> Array:
    """The number of pairs within groups of equal values, for counts (N, R)."""
    sizes = np.add.reduceat(counts, starts, axis=0)
    return np.einsum("nr,nr->r", sizes, sizes - 1) / 2


def _ratio(shared: Array, one: Array, other: Array) -> Array:
    # If all values drawn are equal, a sum of squares is 0 up to rounding.
    defined = (one > 1e-20) & (other > 1e-20)
    result = np.full(len(shared), np.nan)
    result[defined] = shared[defined] / np.sqrt(one[defined] * other[defined])
    return result.clip(-1, 1)
