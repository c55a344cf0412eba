"""Compares our scores with the output of the authors' own programs: `python experiments/authors.py [FOLDER]`.

FOLDER holds `distorted` and `reference` images of the same names and `scores.csv`, with one row per program and one
column per image. Every metric that needs no download is compared with its row; for most rows we have several
conventions, one of which is the authors'. Writes results/authors.md; exits with 1 if no convention matches a
row and `REASONS` does not say why.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import torch

import mdiqa_metric
from mdiqa_metric.registry import locate, manifest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))
from steps import ROOT, environment

# Digits beyond the sixth are floating-point noise of the program.
MOST_DECIMALS = 6
_FLAT = (
    "The programs count a normalized pixel as left or right of 0 by its sign. In flat regions (saturated skies, images "
    "after strong compression) the true value is 0, and theirs is rounding noise of one sign or the other, which "
    "depends on how MATLAB orders a sum; ours is exactly 0 and counts on neither side. Images without such regions "
    "(I04; of BRISQUE also I03 and I06) agree to about the digits."
)
# Metrics of ours that are other functions than the row that their name starts with.
OTHERS = ("psnr-hvs", "psnr-hvs-m", "vif-p")
# Why a row is not matched to all digits by any convention of ours.
REASONS = {
    "niqe": _FLAT,
    "brisque": _FLAT,
    "nlpd": "The authors' program scores gray rounded to 8 bits, which is most of the score where images are almost "
    "equal (I04, I06), and has a weight beyond the 3 x 3 neighborhood that others leave out.",
    "vsi": "Not found out: pyiqa's, whose golden file ours gives, is as far from these digits.",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT.parent / "shared" / "data" / "authors")
    folder = parser.parse_args().folder
    names, printed = read_scores(folder / "scores.csv")
    pairs = [[find(folder / side, name) for side in ("distorted", "reference")] for name in names]
    ours, left_out = {}, []
    for metric in mdiqa_metric.list_metrics():
        if (row := row_of(metric, printed)) is None:
            left_out.append(f"`{metric}`: the authors' scores have no row for it.")
        elif absent := absent_weights(metric):
            left_out.append(f"`{metric}`: {', '.join(absent)} would have to be downloaded.")
        else:
            ours.setdefault(row, {})[metric] = score(metric, pairs)
    lines = heading() + [line for row in ours for line in table(row, names, printed[row], ours[row])]
    lines += ["## Not compared", "", *(f"* {line}" for line in left_out)]
    (HERE / "results").mkdir(parents=True, exist_ok=True)
    (HERE / "results" / "authors.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    missed = [
        row
        for row, metrics in ours.items()
        if row not in REASONS and not any(matches(printed[row], scores) for scores in metrics.values())
    ]
    if missed:
        print(f"NO CONVENTION OF OURS MATCHES {', '.join(missed)}", file=sys.stderr)
    return bool(missed)


def read_scores(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The images' names, and the scores of each program as printed."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return header[1:], {name.replace("_", "-"): values for name, *values in rows}


def find(folder: Path, name: str) -> Path:
    """The image of that name in any format."""
    return next(path for path in sorted(folder.iterdir()) if path.stem == Path(name).stem)


def row_of(metric: str, printed: dict[str, list[str]]) -> str | None:
    """The authors' row for a metric of ours: the longest that its name starts with."""
    if metric in OTHERS:
        return None
    return max((row for row in printed if f"{metric}-".startswith(f"{row}-")), key=len, default=None)


def absent_weights(metric: str) -> list[str]:
    """The weight files of a metric that would have to be downloaded."""
    return [
        key for key in manifest()["metrics"][metric].get("weights", {}).values() if locate(key, fetch=False) is None
    ]


@torch.no_grad()
def score(name: str, pairs: list[list[Path]]) -> list[float]:
    """Our scores, one image at a time because sizes differ."""
    metric = mdiqa_metric.create(name)
    images = ([mdiqa_metric.read_image(path) for path in pair] for pair in pairs)
    return [metric(*(pair if metric.full_reference else pair[:1])).item() for pair in images]


def decimals(printed: list[str]) -> int:
    """How many decimals a program prints; some trailing zeros are missing."""
    return min(MOST_DECIMALS, max(len(value.partition(".")[2]) for value in printed))


def deviation(printed: list[str], ours: list[float]) -> float:
    """The largest difference between the printed scores and ours."""
    return max(abs(float(theirs) - score) for theirs, score in zip(printed, ours, strict=True))


def matches(printed: list[str], ours: list[float]) -> bool:
    """Whether ours rounds to every digit printed of each score, but for what float32 may move it over a half."""
    return all(
        abs(float(theirs) - score) <= 0.5 * 10.0 ** -decimals([theirs]) + 1e-7
        for theirs, score in zip(printed, ours, strict=True)
    )


def heading() -> list[str]:
    """Title, date, versions, commit."""
    facts = environment(torch.device("cpu"))
    return [
        "# Our scores and those of the authors' own programs",
        "",
        f"{facts['date']}, mdiqa_metric {facts['mdiqa_metric']} at commit {facts['commit'][:12]}"
        f"{' with changes not committed' if facts['dirty'] else ''}. {facts['device']}, Python {facts['python']}, "
        f"torch {facts['versions']['torch']}.",
        "",
        "Five pairs of TID2013. A convention matches where every score rounds to all the digits that the authors'",
        "program prints; the others are listed to show what a convention changes. Made by `experiments/authors.py`.",
        "",
    ]


def table(row: str, names: list[str], printed: list[str], ours: dict[str, list[float]]) -> list[str]:
    """The table of one row: the authors' digits, and ours below."""
    places = min(decimals(printed) + 2, MOST_DECIMALS)
    lines = [
        f"## {row}",
        "",
        f"| | {' | '.join(Path(name).stem for name in names)} | largest deviation | matches |",
        f"|---{'|---:' * len(names)}|---:|---|",
        f"| authors | {' | '.join(printed)} | | |",
    ]
    for metric, scores in sorted(ours.items(), key=lambda item: deviation(printed, item[1])):
        values = " | ".join(f"{score:.{places}f}" for score in scores)
        verdict = "all digits" if matches(printed, scores) else "no"
        lines.append(f"| `{metric}` | {values} | {deviation(printed, scores):.1e} | {verdict} |")
    return [*lines, "", *([REASONS[row], ""] if row in REASONS else [])]


if __name__ == "__main__":
    sys.exit(main())
