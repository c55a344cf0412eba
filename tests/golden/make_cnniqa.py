"""Makes cnniqa-unrounded.json: CNNIQA of patches as cnniqa-original.json has it, but of luma that is not rounded.

Written on NumPy and SciPy alone, in float64, from Kang et al. (CVPR 2014) and the other file's `preprocess`, so that it
shares nothing with ours. It first gives the scores of cnniqa-original.json, then those without the rounding.

    python -m tests.golden.make_cnniqa
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy.signal import convolve2d, correlate

from tests.golden import golden

SIDE = 32
FOLDER = Path(__file__).parent


def main() -> None:
    """Checks the implementation on the rounded file and writes the other."""
    data = json.loads((FOLDER / "cnniqa-original.json").read_text())
    weights = {key: golden.fill(key, tuple(shape)).astype(np.float64) for key, shape in data["checkpoint"].items()}
    for case in data["cases"]:
        image = golden.picture(*(case["picture"][key] for key in ("seed", "height", "width")))
        red, green, blue = np.rint(255 * image).astype(int)
        rounded = (19595 * red + 38470 * green + 7471 * blue + 32768) // 65536 / 255  # Pillow's convert("L")
        assert abs(score(rounded, weights) - case["score"]) < 1e-6
        luma = np.einsum("c,chw->hw", [0.299, 0.587, 0.114], image.astype(np.float64))
        case["score"] = case["score64"] = score(luma, weights)
        case.pop("rerun_rel", None)
    data |= {
        "reference": "NumPy and SciPy in float64, which agree with cnniqa-original.json where luma is rounded",
        "preprocess": data["preprocess"].replace('PIL convert("L") uint8 grey /255', "BT.601 luma, not rounded"),
        "variant": "unrounded",
    }
    (FOLDER / "cnniqa-unrounded.json").write_text(json.dumps(data, indent=1) + "\n")


def score(luma: np.ndarray, weights: dict[str, np.ndarray]) -> float:
    """The mean over patches of luma (H, W)."""
    height, width = luma.shape
    places = [(top, left) for top in range(0, height - SIDE, SIDE) for left in range(0, width - SIDE, SIDE)]
    return float(np.mean([network(luma[y : y + SIDE, x : x + SIDE], weights) for y, x in places]))


def network(patch: np.ndarray, weights: dict[str, np.ndarray]) -> float:
    """The score of a patch (32, 32)."""
    box = np.full((3, 3), 1 / 9)
    mean = convolve2d(patch, box, mode="same", boundary="symm")
    variance = convolve2d(patch**2, box, mode="same", boundary="symm") - mean**2
    patch = (patch - mean) / (np.sqrt(np.maximum(variance, 0)) + 1)
    maps = np.stack([correlate(patch, kernel[0], mode="valid", method="direct") for kernel in weights["conv1.weight"]])
    maps += weights["conv1.bias"][:, None, None]
    x = np.concatenate([maps.max((1, 2)), maps.min((1, 2))])
    for layer in ("fc1", "fc2"):
        x = np.maximum(weights[f"{layer}.weight"] @ x + weights[f"{layer}.bias"], 0)
    return (weights["fc3.weight"] @ x + weights["fc3.bias"]).item()


if __name__ == "__main__":
    main()
