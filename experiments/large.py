"""How MDIQA scores a 4K image whole, resized and by tiles: `python experiments/large.py DATA [--official FOLDER]`.

DATA is a folder of photographs, which are resized to 3840 x 2160 by bicubic interpolation. Without the authors' files
the parameters are the golden file's stand-ins: how far a resize moves their scores shows how much of the image such a
network uses, and nothing about human opinions.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mdiqa_metric import MDIQA, create, read_image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))
from steps import ROOT, environment, heading

sys.path.insert(0, str(ROOT))
SIZE = (2160, 3840)


def resized(metric: MDIQA, image: Tensor, shorter: int) -> Tensor:
    """The score of the image resized to that shorter side, antialiased."""
    size = [shorter * side // min(image.shape[-2:]) for side in image.shape[-2:]]
    return metric(F.interpolate(image, size, mode="bicubic", antialias=True).clamp(0, 1))


def tiled(metric: MDIQA, image: Tensor, side: int) -> Tensor:
    """The mean score of square tiles of that side, evenly spread with the least overlap."""
    scores = []
    for top in starts(image.shape[-2], side):
        scores += [metric(image[..., top : top + side, left : left + side]) for left in starts(image.shape[-1], side)]
    return torch.stack(scores).mean(0)


def starts(length: int, side: int) -> list[int]:
    count = -(-length // side)
    return [round(index * (length - side) / max(count - 1, 1)) for index in range(count)]


WAYS = {
    "shorter side 1080": lambda metric, image: resized(metric, image, 1080),
    "shorter side 512": lambda metric, image: resized(metric, image, 512),
    "mean of 1080 px tiles": lambda metric, image: tiled(metric, image, 1080),
    "mean of 512 px tiles": lambda metric, image: tiled(metric, image, 512),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder of photographs")
    parser.add_argument("--official", type=Path, help="the folder of the authors' files")
    parser.add_argument("--count", type=int, default=3, help="how many photographs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    facts = environment(torch.device(options.device))
    if options.official:
        metric = create("mdiqa", weights=options.official)
    else:
        from tests.rows import metric_of, row_of

        metric = metric_of(row_of("mdiqa"))
    metric.to(options.device)
    rows = []
    for path in sorted(options.data.iterdir())[: options.count]:
        image = read_image(path)
        if image.shape[-1] < image.shape[-2]:
            image = image.mT
        image = F.interpolate(image, SIZE, mode="bicubic", antialias=True).clamp(0, 1).to(options.device)
        row = {"image": path.name}
        with torch.no_grad():
            started = time.perf_counter()
            row["whole"] = metric(image).item()
            whole = time.perf_counter() - started
            for name, way in WAYS.items():
                started = time.perf_counter()
                row[name] = way(metric, image).item()
                row[f"{name}, time of the whole over it"] = whole / (time.perf_counter() - started)
        rows.append(row)
        print(row, flush=True)
    stem = options.out / f"large-{torch.device(options.device).type}"
    stem.with_suffix(".json").write_text(json.dumps({"environment": facts, "rows": rows}, indent=1) + "\n")
    parameters = "the authors' files" if options.official else "stand-ins of the golden file, untrained"
    lines = heading("MDIQA on 4K images", facts, f"Parameters: {parameters}.")
    lines += [
        "Photographs resized to 3840 x 2160; score, and in brackets how many times faster than the whole image.",
        "",
        f"| image | whole | {' | '.join(WAYS)} |",
        "|---" * (len(WAYS) + 2) + "|",
    ]
    for row in rows:
        cells = [f"{row[name]:.4f} ({row[f'{name}, time of the whole over it']:.1f})" for name in WAYS]
        lines.append(f"| {row['image']} | {row['whole']:.4f} | {' | '.join(cells)} |")
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
