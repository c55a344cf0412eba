"""Makes the golden files of NIQE and BRISQUE in the authors' convention, which no package has: once more, in numpy.

    python -m tests.golden.make_natural

Written from the papers and the authors' programs' description in float64: MATLAB's rgb2gray in 8 bits, plain moments,
the shapes by a search over the whole grid, a pseudo-inverse. The parameters are those that the package embeds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy.ndimage import correlate1d
from scipy.special import gamma

from tests.golden import golden
from tests.golden.make import SHAPES, gray_8bit, write_cases

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
GRID = np.arange(200, 10001) / 1000
RATIOS = gamma(2 / GRID) ** 2 / (gamma(1 / GRID) * gamma(3 / GRID))
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))

Array = np.ndarray


def normalized(plane: Array, mode: str) -> Array:
    """Mean-subtracted contrast-normalized coefficients by a 7 x 7 Gaussian; scipy's "nearest" is MATLAB's replicate."""
    taps = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    taps /= taps.sum()
    blur = lambda x: correlate1d(correlate1d(x, taps, 0, mode=mode), taps, 1, mode=mode)  # noqa: E731
    mean = blur(plane)
    return (plane - mean) / (np.sqrt(np.abs(blur(plane**2) - mean**2)) + 1)


def asymmetric(values: Array) -> tuple[float, float, float]:
    """Shape, left and right deviation of an asymmetric generalized Gaussian."""
    left, right = (np.sqrt(np.mean(side**2)) for side in (values[values < 0], values[values > 0]))
    ratio = left / right
    target = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    target *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    return float(GRID[np.argmin((RATIOS - target) ** 2)]), float(left), float(right)


def halved(plane: Array) -> Array:
    """MATLAB's imresize(plane, 0.5): the cubic kernel stretched to 8 taps, mirrored beyond the border."""
    near = lambda x: 1.5 * x**3 - 2.5 * x**2 + 1  # noqa: E731
    far = lambda x: -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2  # noqa: E731
    distances = np.abs(np.arange(8) - 3.5) / 2
    taps = np.where(distances <= 1, near(distances), far(distances))
    for axis in (0, 1):
        size = -(-plane.shape[axis] // 2)
        pad = [(0, 0), (0, 0)]
        pad[axis] = (3, 2 * size - plane.shape[axis] + 3)
        padded = np.pad(plane, pad, mode="symmetric")
        plane = sum(t * np.take(padded, range(k, k + 2 * size, 2), axis) for k, t in enumerate(taps / taps.sum()))
    return plane


def niqe(image: Array) -> float:
    """NIQE of (3, H, W) in [0, 1]."""
    plane = gray_8bit(image) * 255
    rows, columns = (size // 96 for size in plane.shape)
    plane = plane[: rows * 96, : columns * 96]
    features: list[list[float]] = [[] for _ in range(rows * columns)]
    for side in (96, 48):
        coefficients = normalized(plane, "nearest")
        for index, found in enumerate(features):
            top, start = index // columns * side, index % columns * side
            block = coefficients[top : top + side, start : start + side]
            for values in (block, *(block * np.roll(block, shift, (0, 1)) for shift in SHIFTS)):
                shape, left, right = asymmetric(values)
                scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
                left, right = left * scale, right * scale
                mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)
                found += [shape, (left + right) / 2] if values is block else [shape, mean, left, right]
        plane = halved(plane)
    model, blocks = load_file(WEIGHTS / "niqe.safetensors"), np.array(features)
    gap = blocks.mean(0) - model["mu_prisparam"][0]
    covariance = (model["cov_prisparam"] + np.cov(blocks.T)) / 2
    return float(np.sqrt(gap @ np.linalg.pinv(covariance) @ gap))


def brisque(image: Array) -> float:
    """BRISQUE of (3, H, W) in [0, 1]."""
    from mdiqa_metric.metrics.brisque import GREATEST, LEAST

    plane, features = gray_8bit(image) * 255, []
    for _ in range(2):
        block = normalized(plane, "constant")
        ratio = np.mean(block**2) / np.mean(np.abs(block)) ** 2
        features += [GRID[np.argmin(np.abs(1 / RATIOS - ratio))], np.mean(block**2)]
        for shift in SHIFTS:
            shape, left, right = asymmetric(block * np.roll(block, shift, (0, 1)))
            scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
            mean = (right - left) * scale * gamma(2 / shape) / gamma(1 / shape)
            features += [shape, mean, left**2, right**2]
        plane = halved(plane)
    low, high, model = np.array(LEAST), np.array(GREATEST), load_file(WEIGHTS / "brisque.safetensors")
    scaled = 2 * (np.array(features) - low) / (high - low) - 1
    kernel = np.exp(-0.05 * ((scaled - model["sv"].astype(np.float64)) ** 2).sum(1))
    return float(kernel @ model["sv_coef"].astype(np.float64) - model["rho"])


def main() -> None:
    """Writes both files."""
    for name, score in (("niqe-gray", niqe), ("brisque-gray", brisque)):
        cases = [(shape, score(golden.picture(*shape))) for shape in SHAPES]
        write_cases(name, f"tests/golden/make_natural.py {score.__name__}", cases, kind="NR", lower_better=True)


if __name__ == "__main__":
    main()
