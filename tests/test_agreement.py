"""Correlations, curves, intervals and tests against SciPy, closed forms and simulation."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from mdiqa_metric.evaluation import correlations
from mdiqa_metric.evaluation.agreement import agreement, compare, difference, distribution_metrics, measure
from mdiqa_metric.evaluation.logistic import logistic4, logistic5

SMALL, LARGE = 60, 1500  # images of which Kendall's pairs are one run, and many that are merged


def related(n: int, rho: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores and opinions of a bivariate normal with that correlation."""
    x, noise = np.random.default_rng(seed).normal(size=(2, n))
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def four(x: Any, b1: float, b2: float, b3: float, b4: float) -> Any:
    return b2 + (b1 - b2) / (1 + np.exp(-(x - b3) / abs(b4)))


def five(x: Any, b1: float, b2: float, b3: float, b4: float, b5: float) -> Any:
    return b1 * (0.5 - 1 / (1 + np.exp(b2 * (x - b3)))) + b4 * x + b5


# Correlations.


@pytest.mark.parametrize("n", [SMALL, LARGE])
@pytest.mark.parametrize("step", [None, 0.5, 2.0])
def test_correlations_are_scipys_with_and_without_ties(n: int, step: float | None) -> None:
    x, y = related(n, 0.6)
    if step:
        x, y = np.round(x / step) * step, np.round(y / step) * step
    found = agreement(x, y, resamples=40)
    assert found["n"] == n
    assert found["srcc"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found["plcc"] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert found["krcc"] == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert found["reasons"] == {}


@pytest.mark.parametrize("n", [12, SMALL])
def test_each_resample_has_the_correlations_of_the_images_it_drew(n: int) -> None:
    """Many at once, ties of repeated images included, are what SciPy says of each alone."""
    x, y = related(n, 0.5)
    y = np.round(y, 1)
    counts = np.concatenate(list(correlations.resampled(n, 30, seed=3)))
    assert (counts.sum(axis=1) == n).all()
    for row, srcc, plcc, krcc in zip(
        counts,
        correlations.spearman(counts, x, y),
        correlations.pearson(counts, x, y),
        correlations.kendall(counts, x, y),
        strict=True,
    ):
        drawn = np.repeat(np.arange(n), row.astype(int))
        assert srcc == pytest.approx(stats.spearmanr(x[drawn], y[drawn]).statistic, abs=1e-12)
        assert plcc == pytest.approx(stats.pearsonr(x[drawn], y[drawn]).statistic, abs=1e-12)
        assert krcc == pytest.approx(stats.kendalltau(x[drawn], y[drawn]).statistic, abs=1e-12)


@pytest.mark.parametrize("n", [3, 127, 128, 129, 300, 1100])
@pytest.mark.parametrize("digits", [0, 1, 9])
def test_kendall_is_scipys_at_any_number_of_runs(n: int, digits: int) -> None:
    x, y = (np.round(values, digits) for values in related(n, 0.5))
    counts = next(correlations.resampled(n, 8, seed=0))
    for row, tau in zip(counts, correlations.kendall(counts, x, y), strict=True):
        drawn = np.repeat(np.arange(n), row.astype(int))
        assert tau == pytest.approx(stats.kendalltau(x[drawn], y[drawn]).statistic, abs=1e-12, nan_ok=True)


def test_metrics_measured_together_are_as_alone() -> None:
    x, y = related(LARGE, 0.5)
    columns = [x, np.round(x**3, 1), np.zeros(LARGE), -y]
    together = measure(columns, y, resamples=50, seed=3)
    assert [each.agreement() for each in together] == [agreement(each, y, resamples=50, seed=3) for each in columns]
    for a, b in combinations(range(4), 2):
        alone = compare(columns[a], columns[b], y, resamples=50, seed=3)
        assert difference(together[a], together[b]) == alone


def test_blocks_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlations, "_BLOCK", 500)
    blocks = list(correlations.resampled(50, 45, seed=0))
    assert [block.shape for block in blocks] == [(10, 50)] * 4 + [(5, 50)]


@pytest.mark.parametrize(("scale", "shift"), [(1e300, 0.0), (1e-300, 0.0), (1.0, 1e9), (-1.0, 0.0)])
def test_correlations_survive_any_unit(scale: float, shift: float) -> None:
    x, y = related(SMALL, 0.7)
    plain, moved = agreement(x, y, resamples=40), agreement(x * scale + shift, y, resamples=40)
    for key in ("srcc", "plcc", "krcc"):
        assert moved[key] == pytest.approx(math.copysign(1, scale) * plain[key], abs=1e-6)


# Intervals.


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """For a bivariate normal: Spearman's 6/pi asin(rho/2), Pearson's rho, Kendall's 2/pi asin(rho)."""
    rho, runs = 0.6, 200
    truth = {"srcc": 6 / math.pi * math.asin(rho / 2), "plcc": rho, "krcc": 2 / math.pi * math.asin(rho)}
    held = dict.fromkeys(truth, 0)
    for seed in range(runs):
        found = agreement(*related(80, rho, seed), resamples=200, seed=seed)
        for key, value in truth.items():
            low, high = found[f"{key}_interval"]
            assert low < found[key] < high
            held[key] += low <= value <= high
    for key, count in held.items():
        assert 0.88 <= count / runs <= 0.99, key


def test_intervals_narrow_with_images_and_repeat_with_their_seed() -> None:
    few, many = (agreement(*related(n, 0.5), resamples=200) for n in (30, 1200))
    for key in ("srcc", "plcc", "krcc"):
        widths = [found[f"{key}_interval"][1] - found[f"{key}_interval"][0] for found in (few, many)]
        assert widths[1] < widths[0] / 3
    assert few == agreement(*related(30, 0.5), resamples=200)
    assert few["srcc_interval"] != agreement(*related(30, 0.5), resamples=200, seed=1)["srcc_interval"]
    assert few["interval_method"] == "95%, percentile bootstrap over images, 200 resamples, seed 0"


def test_resamples_without_a_correlation_are_counted() -> None:
    """One image in twelve that differs is missing from a third of the resamples."""
    found = agreement([0.0] * 11 + [1.0], np.arange(12.0), resamples=400)
    assert found["undefined_resamples"] == pytest.approx(400 * (11 / 12) ** 12, rel=0.2)
    assert found["srcc_interval"][0] > 0


# Curves.


@pytest.mark.parametrize("logistic", [logistic4, logistic5])
@pytest.mark.parametrize("unit", [1.0, 1e-4, 1e5])
def test_a_curve_without_noise_is_found_again(logistic: Any, unit: float) -> None:
    x = np.random.default_rng(0).normal(30, 8, 120)
    y = four(x, 80, 15, 32, 5) if logistic is logistic4 else five(x, 45, 0.25, 32, 0.4, 40)
    fit = logistic(x * unit, y)
    assert fit.converged
    assert fit.predicted == pytest.approx(y, abs=0.02)
    assert fit.curve(x * unit) == pytest.approx(fit.predicted, abs=1e-9)
    formula = four if logistic is logistic4 else five
    assert formula(x * unit, *fit.parameters) == pytest.approx(fit.predicted, abs=1e-6)
    if logistic is logistic4:
        assert fit.parameters == pytest.approx((80, 15, 32 * unit, 5 * unit), rel=2e-2)


@pytest.mark.parametrize("sign", [1, -1])
def test_curves_are_those_of_a_general_optimizer(sign: int) -> None:
    x, noise = np.random.default_rng(1).normal(size=(2, 300))
    y = four(x, 80, 20, 0.3, 0.5) + 6 * noise
    for logistic, formula, start in (
        (logistic4, four, (80 if sign > 0 else 20, 20 if sign > 0 else 80, 0, 1)),
        (logistic5, five, (sign * 60, 1, 0, 0.1, 50)),
    ):
        known = optimize.curve_fit(formula, sign * x, y, p0=start)[0]
        rmse = np.sqrt(((formula(sign * x, *known) - y) ** 2).mean())
        fit = logistic(sign * x, y)
        assert np.sqrt(((fit.predicted - y) ** 2).mean()) == pytest.approx(rmse, rel=1e-5)
        found = agreement(sign * x, y, resamples=40)
        assert found[f"rmse_{fit.name}"] == pytest.approx(rmse, rel=1e-5)
        plcc = stats.pearsonr(formula(sign * x, *known), y).statistic
        assert found[f"plcc_{fit.name}"] == pytest.approx(plcc, abs=1e-5)
        assert plcc > abs(found["plcc"]) > 0
        assert math.copysign(1, found["srcc"]) == sign


@pytest.mark.parametrize("seed", range(20))
def test_the_longer_curve_never_fits_worse(seed: int) -> None:
    random = np.random.default_rng(seed)
    n = int(random.integers(7, 200))
    x = random.standard_t(2, n)  # outliers
    y = np.tanh(random.choice([-1, 1]) * x) + random.choice([0.01, 0.3, 3]) * random.normal(size=n)
    squares = [((fit.predicted - y) ** 2).mean() for fit in (logistic4(x, y), logistic5(x, y))]
    assert squares[1] <= squares[0] * (1 + 1e-6)
    assert squares[0] <= y.var() * (1 + 1e-9)


@pytest.mark.parametrize("shape", ["line", "step", "parabola", "outlier", "most alike", "offset"])
def test_hard_shapes_are_fitted_without_a_word(shape: str) -> None:
    x = np.linspace(0, 1, 101)
    x, y = {
        "line": (x, 3 * x + 1),
        "step": (x, (x > 0.5).astype(float)),
        "parabola": (x, (x - 0.5) ** 2),
        "outlier": (np.append(x, 1e9), np.append(x, 0.5)),
        "most alike": (np.where(x < 0.9, 0, x), x),
        "offset": (x + 1e7, x**2),
    }[shape]
    for fit in (logistic4(x, y), logistic5(x, y)):
        assert fit.converged, fit.reason
        assert ((fit.predicted - y) ** 2).mean() <= y.var()
    assert np.sqrt(((fit.predicted - y) ** 2).mean()) < 0.9 * y.std()


def test_a_fit_that_failed_gives_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdiqa_metric.evaluation.logistic._EVALUATIONS", 3)
    x, y = related(SMALL, 0.5)
    fit = logistic4(x, y)
    assert not fit.converged
    assert fit.parameters == ()
    assert np.isnan(fit.predicted).all()
    found = agreement(x, y, resamples=40)
    for key in ("plcc_logistic4", "rmse_logistic4", "plcc_logistic5", "rmse_logistic5"):
        assert found[key] is None
        assert found["reasons"][key] == "No convergence within 3 evaluations."
    assert found["logistic4_converged"] is False
    assert found["plcc"] is not None


def test_numbers_too_large_to_square_are_not_fitted() -> None:
    fit = logistic5(np.linspace(0, 1, 20), np.linspace(0, 1e300, 20))
    assert not fit.converged
    assert "finite" in fit.reason or "large" in fit.reason


# Between metrics.


def test_meng_rosenthal_and_rubins_z() -> None:
    """The formula by hand, as their 1992 paper writes it (equations 1 to 3)."""
    y, one, other = np.random.default_rng(2).normal(size=(3, 103))
    a, b = y + 0.8 * one, y + 1.3 * one + 0.4 * other
    found = compare(a, b, y, resamples=40)
    r = np.corrcoef([a, b, y])
    square = (r[0, 2] ** 2 + r[1, 2] ** 2) / 2
    f = min((1 - r[0, 1]) / (2 * (1 - square)), 1)
    h = 1 + square / (1 - square) * (1 - f)
    z = (math.atanh(r[0, 2]) - math.atanh(r[1, 2])) * math.sqrt(100 / (2 * (1 - r[0, 1]) * h))
    assert found["meng_z_plcc"] == pytest.approx(z)
    assert found["meng_p_plcc"] == pytest.approx(2 * (1 - stats.norm.cdf(abs(z))))
    ranked = compare(*(stats.rankdata(values) for values in (a, b, y)), resamples=40)
    assert found["meng_z_srcc"] == pytest.approx(ranked["meng_z_plcc"])


def test_a_better_metric_is_told_apart_and_the_order_does_not_matter() -> None:
    y, one, other = np.random.default_rng(0).normal(size=(3, 300))
    better, worse = y + 0.3 * one, y + 1.5 * other
    found, turned = compare(better, worse, y, resamples=300), compare(worse, better, y, resamples=300)
    assert found["n"] == 300
    assert found["srcc_difference"] == pytest.approx(
        stats.spearmanr(better, y).statistic - stats.spearmanr(worse, y).statistic
    )
    assert found["srcc_difference_interval"][0] > 0
    assert found["srcc_difference_p"] == pytest.approx(2 / 301)
    for key in ("meng_p_srcc", "meng_p_plcc", "residual_variance_p"):
        assert found[key] < 1e-6
        assert turned[key] == pytest.approx(found[key])
    assert found["residual_variance_ratio"] < 1
    assert turned["residual_variance_ratio"] == pytest.approx(1 / found["residual_variance_ratio"])
    assert turned["srcc_difference_interval"] == pytest.approx(
        [-end for end in found["srcc_difference_interval"][::-1]]
    )


def test_tests_of_equally_good_metrics_are_rarely_significant() -> None:
    small = {"srcc_difference_p": 0, "meng_p_srcc": 0, "meng_p_plcc": 0}
    for seed in range(100):
        y, one, other = np.random.default_rng(seed).normal(size=(3, 60))
        found = compare(y + one, y + other, y, resamples=100)
        for key in small:
            small[key] += found[key] < 0.05
    assert all(count <= 12 for count in small.values()), small


def test_the_f_test_is_of_residual_variances() -> None:
    y, one, other = np.random.default_rng(5).normal(size=(3, 200))
    a, b = y + 0.5 * one, y + 0.7 * other
    found = compare(a, b, y, resamples=40)
    variances = [((logistic5(scores, y).predicted - y) ** 2).sum() / 195 for scores in (a, b)]
    assert found["residual_variance_ratio"] == pytest.approx(variances[0] / variances[1])
    assert found["residual_variance_p"] == pytest.approx(2 * stats.f(195, 195).cdf(variances[0] / variances[1]))


def test_a_metric_does_not_differ_from_itself() -> None:
    x, y = related(SMALL, 0.5)
    found = compare(x, 2 * x, y, resamples=40)
    assert found["srcc_difference"] == 0
    assert found["srcc_difference_p"] == 1
    assert found["residual_variance_ratio"] == pytest.approx(1)
    assert found["meng_p_srcc"] is None
    assert "two metrics that differ" in found["reasons"]["meng_p_srcc"]


# Distributions of opinions.


def test_earth_movers_distance_by_hand() -> None:
    """All ratings one bin off in the first of four: one of four CDF values differs, by 1."""
    found = distribution_metrics([[1, 0, 0, 0]], [[0, 1, 0, 0]], [1, 2, 3, 4])
    assert found["emd_r1"] == pytest.approx(1 / 4)
    assert found["emd_r2"] == pytest.approx(math.sqrt(1 / 4))
    assert found["mean_error"] == 1
    # Half of them three bins off: three CDF values differ, by 1/2.
    found = distribution_metrics([[2, 0, 0, 0]], [[5, 0, 0, 5]], [1, 2, 3, 4])
    assert found["emd_r1"] == pytest.approx(3 / 8)
    assert found["emd_r2"] == pytest.approx(math.sqrt(3 / 16))


def test_divergence_and_errors_by_hand() -> None:
    predicted, observed = [[0.25, 0.75], [0.5, 0.5], [1, 0]], [[2, 2], [3, 1], [5, 5]]
    found = distribution_metrics(predicted, observed, [0, 1])
    first = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    second = 0.75 * math.log(3 / 2) + 0.25 * math.log(1 / 2)
    third = 0.5 * math.log(0.5) + 0.5 * math.log(0.5 / found["kl_epsilon"])
    assert found["kl"] == pytest.approx((first + second + third) / 3, rel=1e-5)
    assert found["mean_error"] == pytest.approx((0.25 + 0.25 + 0.5) / 3)
    assert found["mean_error_std"] == pytest.approx(np.std([0.25, 0.25, 0.5]))
    assert found["n"] == 3


def test_moments_correlate_and_sides_are_counted() -> None:
    random = np.random.default_rng(0)
    values = np.arange(1, 11)
    observed = random.integers(0, 40, (50, 10)) + 1.0
    predicted = observed + random.integers(0, 60, (50, 10))
    found = distribution_metrics(predicted, observed, values)
    p, o = (rows / rows.sum(axis=1, keepdims=True) for rows in (predicted, observed))
    means = [rows @ values for rows in (p, o)]
    stds = [np.sqrt(rows @ values**2 - mean**2) for rows, mean in zip((p, o), means, strict=True)]
    for name, moments in (("mean", means), ("std", stds)):
        assert found[f"lcc_{name}"] == pytest.approx(stats.pearsonr(*moments).statistic)
        assert found[f"srcc_{name}"] == pytest.approx(stats.spearmanr(*moments).statistic)
    assert found["accuracy_threshold"] == 5.5
    assert found["accuracy"] == pytest.approx(((means[0] > 5.5) == (means[1] > 5.5)).mean())
    cut = distribution_metrics(predicted, observed, values, threshold=5)
    assert cut["accuracy"] == pytest.approx(((means[0] > 5) == (means[1] > 5)).mean())
    assert cut["accuracy"] != found["accuracy"]


def test_identical_distributions_agree_wholly() -> None:
    rows = np.random.default_rng(0).random((20, 5))
    found = distribution_metrics(rows, 7 * rows, [1, 1.5, 2, 3, 5])
    assert [found[key] for key in ("emd_r1", "emd_r2", "kl", "mean_error")] == pytest.approx([0] * 4, abs=1e-12)
    assert [found[key] for key in ("lcc_mean", "srcc_mean", "lcc_std", "srcc_std")] == pytest.approx([1] * 4)
    assert found["accuracy"] == 1


@pytest.mark.parametrize(
    ("predicted", "observed", "values", "told"),
    [
        ([[1, 2]], [[1, 2]], [1, 2, 3], r"predicted takes \(N, 3\).*got \(1, 2\)"),
        ([[1, 2]], [[1, 2], [1, 2]], [1, 2], "got 1 and 2"),
        ([[1, 2]], [[1, 2]], [2, 1], "rising"),
        ([[1, 2]], [[1, 2]], [1, math.nan], "finite"),
        ([[1, -2]], [[1, 2]], [1, 2], "predicted .* negative"),
        ([[1, 2]], [[1, math.nan]], [1, 2], "observed .* non-finite"),
        ([[1, 2], [0, 0]], [[1, 2], [1, 2]], [1, 2], "1 of 2 images without a rating"),
        (np.zeros((0, 2)), np.zeros((0, 2)), [1, 2], r"got \(0, 2\)"),
    ],
)
def test_distributions_that_are_none_are_refused(predicted: Any, observed: Any, values: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        distribution_metrics(predicted, observed, values)


# Bad input.


@pytest.mark.parametrize(
    ("scores", "mos", "why"),
    [
        ([], [], "at least 3 images, got 0"),
        ([1.0, 2.0], [1.0, 2.0], "at least 3 images, got 2"),
        ([0.5] * 20, range(20), "All scores are 0.5"),
        (range(20), [7.0] * 20, "All mos are 7"),
        ([0.1 + 0.2, 0.3] * 10, range(20), "All scores are 0.3"),  # differ by rounding
        ([0.0] * 5, [0.0] * 5, "All scores are 0"),
    ],
)
def test_an_undefined_correlation_is_none_with_a_reason(scores: Any, mos: Any, why: str) -> None:
    found = agreement(scores, mos)
    assert found["n"] == len(scores)
    for key in ("srcc", "plcc", "krcc", "srcc_interval", "plcc_logistic4", "rmse_logistic5"):
        assert found[key] is None
        assert why in found["reasons"][key]
    assert found["logistic4_converged"] is found["logistic5_converged"] is False
    between = compare(scores, list(mos), mos)
    assert between["n"] == len(scores)
    assert {key for key in between if between[key] is None} == set(between["reasons"])
    assert between["srcc_difference_p"] is between["meng_z_srcc"] is between["residual_variance_p"] is None


def test_few_images_have_no_interval_and_no_curve_through_each() -> None:
    found = agreement([1, 2, 3, 4], [1, 2, 4, 3])
    assert found["srcc"] == pytest.approx(0.8)
    assert found["srcc_interval"] is None
    assert "at least 10" in found["reasons"]["srcc_interval"]
    assert "4 images cannot determine 4 parameters" in found["reasons"]["plcc_logistic4"]
    assert "at least 6" in found["reasons"]["plcc_logistic5"]
    between = compare([1, 2, 3, 4], [1, 3, 2, 4], [1, 2, 4, 3])
    assert between["srcc_difference"] is not None
    assert between["srcc_difference_p"] is None


def test_a_perfect_order_is_one_throughout() -> None:
    x = np.arange(30.0)
    found = agreement(x, x**3, resamples=40)
    assert found["srcc"] == found["krcc"] == 1
    assert found["srcc_interval"] == found["krcc_interval"] == [1, 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["scores", "mos"])
def test_what_is_not_finite_is_refused(bad: float, place: str) -> None:
    x, y = related(20, 0.5)
    (x if place == "scores" else y)[3] = bad
    for function in (agreement, logistic4, logistic5):
        with pytest.raises(ValueError, match=f"{place} takes finite numbers, got 1 of 20 that are not"):
            function(x, y)
    with pytest.raises(ValueError, match="takes finite numbers"):
        compare(x, x, y)


def test_other_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="got 3 scores, 4 mos"):
        agreement([1, 2, 3], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="got 3 scores_a, 2 scores_b, 3 mos"):
        compare([1, 2, 3], [1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"\(N,\), got the shape \(3, 1\)"):
        agreement([[1], [2], [3]], [1, 2, 3])
    with pytest.raises(ValueError, match="scores takes numbers, one an image"):
        agreement(["good", "bad", "good"], [1, 2, 3])
    for function in (agreement, lambda x, y, resamples: compare(x, x, y, resamples=resamples)):
        with pytest.raises(ValueError, match="at least 40 resamples, got 39"):
            function([1, 2, 3], [1, 2, 3], resamples=39)


def test_results_are_plain_json() -> None:
    x, y = related(SMALL, 0.5)
    rows = np.random.default_rng(0).random((4, 3))
    for result in (
        agreement(x, y),
        compare(x, y, y**3 + x),
        agreement([1], [2]),
        distribution_metrics(rows, rows, [1, 2, 3]),
    ):
        assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_without_scipy_the_extra_is_named() -> None:
    code = """
import sys
sys.modules["scipy"] = None
from mdiqa_metric.evaluation.agreement import agreement
try:
    agreement(range(20), range(20))
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'mdiqa_metric[evaluate]'" in done.stdout
