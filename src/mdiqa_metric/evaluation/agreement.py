"""Agreement between scores and human opinion: the numbers that papers report, and tests between two metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..optional import import_optional
from .correlations import (
    Array,
    Column,
    Kendall,
    Missing,
    check_numbers,
    check_pairs,
    interval,
    no_correlation,
    pearson,
    resampled,
    spearman,
    standardized,
    with_reasons,
)
from .logistic import Fit, logistic_fits

__all__ = ["agreement", "compare", "distribution_metrics"]

CORRELATIONS = ("srcc", "plcc", "krcc")
_KL_EPSILON = 1e-7


def agreement(scores: npt.ArrayLike, mos: npt.ArrayLike, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Computes the numbers that papers report for one metric: the agreement of scores (N,) with opinions (N,).

    Args:
        scores: one score per image, higher is better.
        mos: the mean opinion scores, higher is better.
        resamples, seed: the number of bootstrap resamples, and their random seed.

    Returns:
        A dict that can be saved as JSON:

        * `n`: the number of images;
        * `srcc` (Spearman, average ranks for ties), `plcc` (Pearson, on raw scores) and `krcc` (Kendall's tau-b), in
          [-1, 1]; for each, `..._interval` is its 95% interval [low, high] by the percentile bootstrap over images,
          with the same resamples for all three. `interval_method` describes it. Resamples in which all values are
          equal are ignored and counted in `undefined_resamples`;
        * `plcc_logistic4`, `plcc_logistic5`: Pearson after the fitted curve, in [0, 1]. The curve may fall, so take the
          sign from `srcc`. `rmse_logistic4`, `rmse_logistic5`: sqrt(mean((curve - mos)^2)), in the unit of `mos`;
        * `logistic4_converged`, `logistic4_reason`, `logistic5_converged`, `logistic5_reason`: how the fits ended;
        * `reasons`: for each number that is undefined, and therefore None, the reason.

    Raises:
        ValueError: the inputs are not finite arrays (N,) of one length, or there are fewer than 40 resamples.

    Example:
        >>> result = agreement([0.1, 0.4, 0.2, 0.9], [1, 3, 2, 4])
        >>> result["srcc"], round(result["plcc"], 3)
        (1.0, 0.943)
        >>> result["reasons"]["srcc_interval"]
        'An interval needs at least 10 images that vary, got 4.'
    """
    x, y = check_pairs(scores=scores, mos=mos)
    return measure([x], y, resamples=resamples, seed=seed)[0].agreement()


def compare(
    scores_a: npt.ArrayLike, scores_b: npt.ArrayLike, mos: npt.ArrayLike, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Tests whether metrics a and b agree differently with opinions on the same images.

    Args:
        scores_a, scores_b: the scores (N,) of each metric, higher is better.
        mos: the mean opinion scores (N,), higher is better.
        resamples, seed: the number of bootstrap resamples, and their random seed.

    Returns:
        A dict that can be saved as JSON. Every p-value is two-sided and not corrected for multiple comparisons.

        * `n`, `srcc_a`, `srcc_b`, `srcc_difference` = `srcc_a` - `srcc_b`, and from the paired bootstrap over images
          its 95% `srcc_difference_interval` and `srcc_difference_p` = 2 (k + 1) / (R + 1), for k of R resamples on the
          rarer side of 0. The only assumption is that the images are a random sample;
        * `meng_z_srcc`, `meng_p_srcc`, `meng_z_plcc`, `meng_p_plcc`: the z-test of dependent correlations on raw
          scores; z > 0 if a is ahead. It assumes normal data, so it is approximate for ranks. Source: Meng, Rosenthal
          and Rubin, "Comparing correlated correlation coefficients", Psychological Bulletin (1992);
        * `residual_variance_ratio`, `residual_variance_p`: the F-test on the ratio of a's residual variance to b's
          after `logistic5`, with N - 5 degrees of freedom each; below 1 if a is ahead. It assumes normal residuals
          that are independent between the metrics. On the same images they are not, so the test is conservative.
          Source: Sheikh, Sabir and Bovik (2006);
        * `interval_method`, `undefined_resamples`, `reasons`: as in `agreement`.

    Raises:
        ValueError: the inputs are not finite arrays (N,) of one length, or there are fewer than 40 resamples.

    Example:
        >>> result = compare([1, 2, 3, 4], [1, 2, 4, 3], [1, 2, 3, 4])
        >>> round(result["srcc_a"], 3), round(result["srcc_b"], 3), round(result["srcc_difference"], 3)
        (1.0, 0.8, 0.2)
    """
    a, b, y = check_pairs(scores_a=scores_a, scores_b=scores_b, mos=mos)
    return difference(*measure([a, b], y, ("srcc",), resamples=resamples, seed=seed))


class Measured:
    """The scores (N,) of a metric and the opinions on the same images, with cached results. Made by `measure`.

    Attributes:
        scores, mos: (N,), as given.
        interval_method: how intervals are computed, in words.
        missing: why the correlations are undefined, or None.
        resampled: the names of the correlations computed for each resample.
        drawn: by name, the correlation in each resample, (R,); empty if `missing`.
    """

    def __init__(self, scores: Array, mos: Array, resampled: Sequence[str], interval_method: str) -> None:
        self.scores, self.mos, self.resampled, self.interval_method = scores, mos, resampled, interval_method
        self.missing = no_correlation(scores=scores, mos=mos)
        self.drawn: dict[str, Array] = {}

    @cached_property
    def unit(self) -> Column:
        """The standardized scores."""
        return Column(standardized(self.scores))

    @cached_property
    def correlations(self) -> dict[str, float]:
        """SRCC, PLCC and KRCC on the original sample."""
        opinions = Column(standardized(self.mos))
        once = np.ones((1, len(self.mos)))
        found = {
            "srcc": pearson(once, self.unit.ranks(once), opinions.ranks(once)),
            "plcc": pearson(once, self.unit.values, opinions.values),
            "krcc": Kendall(self.unit, opinions)(once),
        }
        return {name: float(value[0]) for name, value in found.items()}

    @cached_property
    def fits(self) -> tuple[Fit, Fit]:
        """The 4-parameter and the 5-parameter curve."""
        return logistic_fits(self.scores, self.mos)

    def correlation(self) -> dict[str, Any]:
        """The result of `agreement` without curves, with intervals for the correlations in `resampled` only."""
        return with_reasons(self._correlation())

    def agreement(self) -> dict[str, Any]:
        """The result of the function `agreement`."""
        result = self._correlation()
        for fit in self.fits:
            result[f"plcc_{fit.name}"], result[f"rmse_{fit.name}"] = _after(fit, self.mos)
            result |= {f"{fit.name}_converged": fit.converged, f"{fit.name}_reason": fit.reason}
        return with_reasons(result)

    def _correlation(self) -> dict[str, Any]:
        result: dict[str, Any] = {"n": len(self.mos), "interval_method": self.interval_method}
        for name in CORRELATIONS:
            result[name] = self.missing or self.correlations[name]
            if name in self.resampled:
                result[f"{name}_interval"] = self.missing or interval(self.drawn[name], len(self.mos))
        result["undefined_resamples"] = 0 if self.missing else int(np.isnan(self.drawn["srcc"]).sum())
        return result


def measure(
    scores: Sequence[Array], mos: Array, names: Sequence[str] = CORRELATIONS, *, resamples: int, seed: int
) -> list[Measured]:
    """Measures several metrics on the same images and resamples, so that both are drawn and ranked only once.

    Args:
        scores: the scores of each metric, (N,), finite, higher is better.
        mos: the opinions, (N,), finite.
        names: the correlations to compute for each resample.
        resamples, seed: as in `agreement`.

    Raises:
        ValueError: there are fewer than 40 resamples.

    Example:
        >>> (measured,) = measure([np.array([1.0, 2, 4])], np.array([1.0, 2, 3]), resamples=40, seed=0)
        >>> round(measured.correlations["srcc"], 3)
        1.0
    """
    found = [Measured(each, mos, names, _interval_method(resamples, seed)) for each in scores]
    if varying := [measured for measured in found if not measured.missing]:
        opinions = Column(standardized(mos))
        drawn: list[dict[str, list[Array]]] = [{name: [] for name in names} for _ in varying]
        concordances = [Kendall(measured.unit, opinions) if "krcc" in names else None for measured in varying]
        for counts in resampled(len(mos), resamples, seed):
            ranks = opinions.ranks(counts)
            for measured, concordance, lists in zip(varying, concordances, drawn, strict=True):
                unit = measured.unit
                lists["srcc"].append(pearson(counts, unit.ranks(counts), ranks))
                if "plcc" in names:
                    lists["plcc"].append(pearson(counts, unit.values, opinions.values))
                if concordance:
                    lists["krcc"].append(concordance(counts))
        for measured, lists in zip(varying, drawn, strict=True):
            measured.drawn = {name: np.concatenate(blocks) for name, blocks in lists.items()}
    return found


def difference(a: Measured, b: Measured) -> dict[str, Any]:
    """The result of `compare` for two metrics that `measure` measured together.

    Example:
        >>> mos = np.array([1.0, 2, 3, 4])
        >>> a, b = measure([mos, mos[[0, 1, 3, 2]]], mos, ("srcc",), resamples=40, seed=0)
        >>> round(difference(a, b)["srcc_difference"], 3)
        0.2
    """
    n = len(a.mos)
    result: dict[str, Any] = {"n": n, "interval_method": a.interval_method}
    if missing := no_correlation(scores_a=a.scores, scores_b=b.scores, mos=a.mos):
        by_rank = ("srcc_a", "srcc_b", "srcc_difference", "srcc_difference_interval", "srcc_difference_p")
        by_meng = ("meng_z_srcc", "meng_p_srcc", "meng_z_plcc", "meng_p_plcc")
        result |= dict.fromkeys((*by_rank, *by_meng), missing) | {"undefined_resamples": 0}
    else:
        once = np.ones((1, n))
        between = {
            "srcc": float(pearson(once, a.unit.ranks(once), b.unit.ranks(once))[0]),
            "plcc": float(pearson(once, a.unit.values, b.unit.values)[0]),
        }
        for name in ("srcc", "plcc"):
            with_a, with_b = a.correlations[name], b.correlations[name]
            result[f"meng_z_{name}"], result[f"meng_p_{name}"] = _meng(with_a, with_b, between[name], n)
            if name == "srcc":
                result |= {"srcc_a": with_a, "srcc_b": with_b, "srcc_difference": with_a - with_b}
        drawn = a.drawn["srcc"] - b.drawn["srcc"]
        result["srcc_difference_interval"] = found = interval(drawn, n)
        result["srcc_difference_p"] = found if isinstance(found, Missing) else _bootstrap_p(drawn)
        result["undefined_resamples"] = int(np.isnan(drawn).sum())
    result["residual_variance_ratio"], result["residual_variance_p"] = _residual_test(a.fits[1], b.fits[1], a.mos)
    return with_reasons(result)


def distribution_metrics(
    predicted: npt.ArrayLike, observed: npt.ArrayLike, values: npt.ArrayLike, *, threshold: float | None = None
) -> dict[str, Any]:
    """Compares predicted with observed rating distributions, as papers on AVA do.

    Args:
        predicted, observed: (N, B), counts or fractions; rows are divided by their sums.
        values: (B,), the rating that each bin stands for, increasing.
        threshold: the mean rating that separates good from bad for `accuracy`; by default the middle of the scale.
            Papers on AVA use 5, which is not the middle of 1 to 10.

    Returns:
        A dict that can be saved as JSON:

        * `emd_r1`, `emd_r2`: the earth mover's distance (mean over bins of |CDF difference|^r)^(1/r), averaged over
          images, in [0, 1]; neighboring bins are one step apart whatever `values` is. Source: Talebi and Milanfar,
          "NIMA: neural image assessment", IEEE Transactions on Image Processing (2018), who train with r = 2 and
          report r = 1;
        * `kl`: the Kullback-Leibler divergence of predicted p from observed o, sum(o log(o / p)) in nats, averaged over
          images, after adding `kl_epsilon` to every bin of both and normalizing again;
        * `mean_error`, `mean_error_std`: mean and population standard deviation of |predicted mean - observed mean|, in
          the unit of `values`; "Error (+-)" in papers;
        * `lcc_mean`, `srcc_mean`, `lcc_std`, `srcc_std`: Pearson and Spearman correlation between the means of the
          distributions, and between their standard deviations;
        * `accuracy`: the fraction of images whose predicted and observed means are both above
          `accuracy_threshold`, or both not;
        * `n`, the number of images, and `reasons`: for each correlation that is undefined, and therefore None, why.

    Raises:
        ValueError: shapes do not match, ratings are negative or not finite, an image has none, or `values` does not
            increase.

    Example:
        >>> result = distribution_metrics([[0, 1, 0], [0, 0, 1]], [[0, 2, 0], [0, 1, 1]], values=[1, 2, 3])
        >>> result["mean_error"], result["accuracy"]
        (0.25, 1.0)
    """
    scale = check_numbers("values", values)
    if len(scale) < 2 or not (np.diff(scale) > 0).all():
        raise ValueError(f"values takes two or more rising numbers, one per bin, got {scale.tolist()}.")
    p, o = _distributions("predicted", predicted, len(scale)), _distributions("observed", observed, len(scale))
    if len(p) != len(o):
        raise ValueError(f"Each image needs a predicted and an observed distribution, got {len(p)} and {len(o)}.")
    distance = np.abs(np.cumsum(p - o, axis=1))
    smooth_p, smooth_o = ((rows + _KL_EPSILON) / (1 + len(scale) * _KL_EPSILON) for rows in (p, o))
    mean_p, mean_o = p @ scale, o @ scale
    error = np.abs(mean_p - mean_o)
    middle = float(scale[0] + scale[-1]) / 2 if threshold is None else float(threshold)
    result: dict[str, Any] = {
        "n": len(p),
        "emd_r1": float(distance.mean()),
        "emd_r2": float(np.sqrt((distance**2).mean(axis=1)).mean()),
        "kl": float((smooth_o * np.log(smooth_o / smooth_p)).sum(axis=1).mean()),
        "kl_epsilon": _KL_EPSILON,
        "mean_error": float(error.mean()),
        "mean_error_std": float(error.std()),
        "accuracy": float(((mean_p > middle) == (mean_o > middle)).mean()),
        "accuracy_threshold": middle,
    }
    stds = (np.sqrt((rows * (scale - m[:, None]) ** 2).sum(axis=1)) for rows, m in ((p, mean_p), (o, mean_o)))
    for moment, (x, y) in {"mean": (mean_p, mean_o), "std": tuple(stds)}.items():
        missing = no_correlation(predicted=x, observed=y)
        for name, correlate in (("lcc", pearson), ("srcc", spearman)):
            result[f"{name}_{moment}"] = missing or _one(correlate, x, y)
    return with_reasons(result)


def _interval_method(resamples: int, seed: int) -> str:
    if resamples < 40:
        raise ValueError(f"The ends of a 95% interval need at least 40 resamples, got {resamples}: 1000 is usual.")
    return f"95%, percentile bootstrap over images, {resamples} resamples, seed {seed}"


def _one(correlate: Any, x: Array, y: Array) -> float:
    return float(correlate(np.ones((1, len(x))), standardized(x), standardized(y))[0])


def _after(fit: Fit, y: Array) -> tuple[float | Missing, float | Missing]:
    """Pearson correlation and root mean squared error after a fitted curve."""
    if not fit.converged:
        return Missing(fit.reason), Missing(fit.reason)
    flat = no_correlation(predicted=fit.predicted, mos=y)
    rmse = float(np.sqrt(((fit.predicted - y) ** 2).mean()))
    return flat or _one(pearson, fit.predicted, y), rmse


def _bootstrap_p(drawn: Array) -> float:
    drawn = drawn[~np.isnan(drawn)]
    rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return min(1.0, 2 * (int(rarer) + 1) / (len(drawn) + 1))


def _meng(with_a: float, with_b: float, between: float, n: int) -> tuple[float | Missing, float | Missing]:
    if n < 4 or max(abs(with_a), abs(with_b), between) > 1 - 1e-12:
        reason = Missing("The z-test needs 4 images, correlations below 1, and two metrics that differ.")
        return reason, reason
    square = (with_a**2 + with_b**2) / 2
    f = min(1.0, (1 - between) / (2 * (1 - square)))
    h = (1 - f * square) / (1 - square)
    z = (math.atanh(with_a) - math.atanh(with_b)) * math.sqrt((n - 3) / (2 * (1 - between) * h))
    return z, float(2 * import_optional("scipy.stats").norm.sf(abs(z)))


def _residual_test(a: Fit, b: Fit, y: Array) -> tuple[float | Missing, float | Missing]:
    for role, fit in (("a", a), ("b", b)):
        if not fit.converged:
            return (reason := Missing(f"The curve of {role} was not fitted. {fit.reason}")), reason
    squares_a, squares_b = (float(((fit.predicted - y) ** 2).sum()) for fit in (a, b))
    if min(squares_a, squares_b) <= 1e-20 * float(((y - y.mean()) ** 2).sum()):
        return (reason := Missing("A curve fits without residuals, so variances cannot be compared.")), reason
    ratio, freedom = squares_a / squares_b, len(y) - 5
    distribution = import_optional("scipy.stats").f
    return ratio, float(
        min(1.0, 2 * min(distribution.cdf(ratio, freedom, freedom), distribution.sf(ratio, freedom, freedom)))
    )


def _distributions(name: str, rows: npt.ArrayLike, bins: int) -> Array:
    array = np.asarray(rows, np.float64)
    if array.ndim != 2 or array.shape[1] != bins or len(array) == 0:
        raise ValueError(f"{name} takes (N, {bins}), a row per image and a bin per value, got {array.shape}.")
    if not (np.isfinite(array) & (array >= 0)).all():
        raise ValueError(f"{name} takes counts or fractions from 0 up, got negative or non-finite ones.")
    sums = array.sum(axis=1, keepdims=True)
    if empty := int((sums == 0).sum()):
        raise ValueError(f"{name} has {empty} of {len(array)} images without a rating: leave them out, and say so.")
    return array / sums
