"""Makes the golden files that ../shared/golden does not have, from established packages run as they are.

Needs scikit-image, and for the super-resolution papers' convention the source archive of BasicSR 1.4.2 (Apache-2.0),
whose metrics module runs on numpy and OpenCV alone:

    pip download --no-deps --no-binary :all: basicsr==1.4.2 && tar xzf basicsr-1.4.2.tar.gz
    pip install opencv-python-headless scikit-image
    PYTHONPATH=basicsr-1.4.2 python -m tests.golden.make
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.golden import golden

SHAPES = ((1, 256, 256), (2, 384, 512), (3, 225, 333), (4, 256, 256), (5, 240, 320))
BT601 = np.array([0.299, 0.587, 0.114])


def main() -> None:
    """Writes every file this script knows."""
    write("psnr-y-studio", "basicsr==1.4.2 calculate_psnr(crop_border=4, test_y_channel=True)", basicsr("psnr"))
    write("ssim-y-studio", "basicsr==1.4.2 calculate_ssim(crop_border=4, test_y_channel=True)", basicsr("ssim"))
    write(
        "ssim-y-full",
        "scikit-image structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1)"
        " of 0.299 R + 0.587 G + 0.114 B, not rounded",
        skimage_ssim,
    )


def basicsr(name: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """BasicSR's metric of that name on 8-bit pictures with a border of 4."""
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
        # BasicSR reads pictures as OpenCV does, in BGR
        pair = [np.round(picture[::-1] * 255).astype(np.uint8).transpose(1, 2, 0) for picture in (image, reference)]
        return float(metric(*pair, crop_border=4, test_y_channel=True))

    return score


def skimage_ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """scikit-image's SSIM of the unrounded luma."""
    from skimage.metrics import structural_similarity

    luma = [np.einsum("c,chw->hw", BT601, picture.astype(np.float64)) for picture in (image, reference)]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return float(structural_similarity(*luma, **options))


def write(stem: str, reference: str, score: Callable[[np.ndarray, np.ndarray], float]) -> None:
    """One golden file: the scores of the five public pictures."""
    cases = []
    for shape in SHAPES:
        picture = dict(zip(("seed", "height", "width"), shape, strict=True))
        value = score(golden.degraded(*shape), golden.picture(*shape))
        cases.append({"picture": picture, "ref": picture, "options": {}, "score": value})
    data = {"reference": reference, "kind": "FR", "lower_better": False, "checkpoint": {}, "cases": cases}
    Path(__file__).with_name(f"{stem}.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
