"""MDIQA-lite: speed, dimensions on held-out images, images optimized with it: `python experiments/lite.py DATA`.

DATA is a folder with bsds500/, which was not used in training. Three parts: the time of a loss step compared with MDIQA
and LPIPS-VGG in one process; ladders and cross-talk, as on its card for held-out scenes; and the adversary: noisy and
blurred images are optimized with each form for 200 steps and compared with the clean ones. Writes results/lite.md and
.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from random import Random
from typing import Any

import torch
from mdiqa import MDIQA, ours, race, ratio
from torch import Tensor

import mdiqa_metric
from mdiqa_metric import DimensionMean, Loss, MDIQALite, read_image
from mdiqa_metric.data.pairing import list_images
from mdiqa_metric.train.distortions import defocus, display_noise, photon_noise
from mdiqa_metric.train.mdiqa_lite_data import center_crop
from mdiqa_metric.train.mdiqa_lite_validation import measure_ladders

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))
from steps import environment, heading, images

DEGRADATIONS = {
    "display noise": lambda image: display_noise(image, 0.6, Random(0)),
    "sensor noise": lambda image: photon_noise(image, 0.6, Random(0)),
    "defocus": lambda image: defocus(image, 0.5, Random(0)),
}


OTHERS = ("mdiqa", "lpips-vgg")


class LossStep:
    """Forward and, if `backward`, backward to the image."""

    def __init__(self, metric: mdiqa_metric.Metric, image: Tensor, reference: Tensor | None, backward: bool) -> None:
        self.metric, self.reference = metric, reference
        self.image = image.clone().requires_grad_(backward)

    def encode(self) -> None:
        """Does nothing: no reference is encoded beforehand."""

    def __call__(self) -> None:
        self.image.grad = None
        with torch.set_grad_enabled(self.image.requires_grad):
            score = self.metric(self.image, self.reference).sum()
        if self.image.requires_grad:
            score.backward()


def speed(lite: MDIQALite, rounds: int, device: torch.device) -> dict[str, Any]:
    """Times of other metrics over ours, and images per second."""
    image, reference = images(1, 256, device)
    mdiqa: MDIQA = ours().to(device)
    lpips = mdiqa_metric.create("lpips-vgg", weights=None).to(device)
    runs = {
        "overall": LossStep(lite, image, None, True),
        "mean of dimensions": LossStep(DimensionMean(lite), image, None, True),
        "mdiqa": LossStep(mdiqa, image, None, True),
        "lpips-vgg": LossStep(lpips, image, reference, True),
    }
    seconds = race(runs, rounds, device)
    forms = ("overall", "mean of dimensions")
    found = {f"{name} over {form}": ratio(seconds[name], seconds[form]) for form in forms for name in OTHERS}
    large = race({"lite": LossStep(lite, images(1, 512, device)[0], None, False)}, rounds, device)
    return {**found, "images of 512 px a second": 1 / sorted(large["lite"])[rounds // 2]}


def adversary(lite: MDIQALite, clean: list[Tensor], steps: int) -> dict[str, Any]:
    """Means over images whose pixels are optimized for the score: score and PSNR before, at best and after."""
    psnr = mdiqa_metric.create("psnr").to(clean[0].device)
    found = {}
    for kind, degrade in DEGRADATIONS.items():
        for name in ("mean of dimensions", "noisiness", "sharpness", "overall"):
            asked = [float(each == name) for each in lite.dimension_names]
            form = (lite if name == "overall" else DimensionMean(lite)).set_weights(
                asked if any(asked) else [1.0] * len(asked)
            )
            scores, fidelity = [], []
            for photo in clean:
                loss, image = Loss(form), degrade(photo)[None].requires_grad_()
                optimizer = torch.optim.Adam([image], lr=1 / 255)
                line = [form(image).item()], [psnr(image, photo[None]).item()]
                for _ in range(steps):
                    optimizer.zero_grad()
                    loss(image).backward()
                    optimizer.step()
                    with torch.no_grad():
                        image.clamp_(0, 1)
                        line[1].append(psnr(image, photo[None]).item())
                scores.append([*line[0], form(image).item(), form(photo[None]).item()])
                fidelity.append(line[1])
            way = torch.tensor(fidelity).mean(0)
            row = dict(zip(("score before", "after", "of the clean image"), _means(scores), strict=True))
            row |= {"PSNR before": way[0].item(), "best on the way": way.max().item(), "at step": way.argmax().item()}
            found[f"{kind}, {name}"] = row | {"PSNR after": way[-1].item()}
            print(kind, name, found[f"{kind}, {name}"], flush=True)
    lite.set_weights([1.0] * len(lite.dimension_names))
    return found


def _means(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def report(facts: dict[str, Any], found: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    lines = heading("MDIQA-lite", facts, "Images of BSDS500, not used in training, cropped to 288 px.")
    lines += ["## Speed", "", "A loss step at 256 px, batch 1: time of the other over that of ours.", ""]
    for name, row in found["speed"].items():
        if isinstance(row, dict):
            lines.append(f"* {name}: {row['median']:.2f} [{row['low']:.2f}, {row['high']:.2f}]")
    lines += [
        f"* scores {found['speed']['images of 512 px a second']:.0f} images of 512 px per second on this machine",
        "",
    ]
    names = list(found["ladders"])
    lines += ["## Ladders and cross-talk", "", "The card explains them.", ""]
    lines += [f"| changed | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name in names:
        lines.append(f"| {name} | {' | '.join(f'{value:.3f}' for value in found['cross-talk'][name].values())} |")
    lines += ["", "| change | of | order |", "|---|---|---|"]
    lines += [f"| {kind} | {name} | {value:.3f} |" for name in names for kind, value in found["ladders"][name].items()]
    lines += [
        "",
        "## Adversary",
        "",
        f"Adam on the pixels, 1/255 a step, {found['steps']} steps, nothing else in the loss.",
        "",
    ]
    keys = next(iter(found["adversary"].values()))
    lines += [f"| image, form | {' | '.join(keys)} |", "|---" * (len(keys) + 1) + "|"]
    for name, row in found["adversary"].items():
        lines.append(f"| {name} | {' | '.join(f'{value:.3g}' for value in row.values())} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--count", type=int, default=10, help="images for the ladders")
    parser.add_argument("--attacked", type=int, default=4, help="images for the adversary")
    parser.add_argument("--steps", type=int, default=200, help="steps of the adversary")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    device = torch.device(options.device)
    facts = environment(device)
    lite = mdiqa_metric.create("mdiqa-lite").to(device)
    found: dict[str, Any] = {"speed": speed(lite, options.rounds, device)}
    print(found["speed"], flush=True)
    files = list_images([str(options.data / "bsds500")])[:: max(1, 200 // options.count)][: options.count]
    clean = [center_crop(read_image(path)[0], 288) for path in files]
    found["ladders"], found["cross-talk"] = measure_ladders(lite.cpu(), clean)
    print(found["ladders"], flush=True)
    smaller = [center_crop(image, 160).to(device) for image in clean[: options.attacked]]
    found["steps"] = options.steps
    found["adversary"] = adversary(lite.to(device), smaller, options.steps)
    (options.out / "lite.json").write_text(json.dumps({"environment": facts, **found}, indent=1) + "\n")
    (options.out / "lite.md").write_text(report(facts, found))


if __name__ == "__main__":
    main()
