"""Steers a restoration network: trains the same one to be faithful, sharper or cleaner, as you ask.

    python examples/steer_restoration.py --out out
    python examples/steer_restoration.py --set sharpness=4 --set sharpness=2 noisiness=2 --data photographs

A small residual network is trained with L1 alone to undo blur, halving and sensor noise. Copies of it are then trained
further, for the same steps on the same crops: "off" with L1 alone as before, the others with MDIQA-lite added, at all
weights 1 ("neutral") and at those of each --set. Held-out images are restored by all of them, and the results are
printed and written to `steer.csv` and `steer.png`. The last four columns use no model; restoration_measures.py explains
them. With scikit-image's photographs and 200 steps it takes about three minutes on two cores, four at most: when other
programs keep the cores busy, fewer steps are made, unless --steps says how many.

The photographs come with scikit-image and are free: chelsea (Stefan van der Walt, CC0), coffee (Rachel Michetti, CC0),
astronaut and hubble_deep_field (NASA, public domain), rocket (SpaceX, public domain).
"""

from __future__ import annotations

import argparse
import copy
import csv
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import matplotlib
import skimage.data
import torch
import torch.nn.functional as F
from pace import Pace, use_fastest_threads
from restoration_measures import Figures, measure
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import mdiqa_metric
from mdiqa_metric import DimensionMean, Loss, MultiDimensional
from mdiqa_metric.data.pairing import list_images
from mdiqa_metric.train.distortions import blur, gaussian, photon_noise

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PHOTOGRAPHS = ("chelsea", "astronaut", "rocket", "hubble_deep_field", "coffee")
STEPS = 200  # per setting, after four times as many with L1 alone
SLOWEST = 0.15  # seconds per step; slower machines make fewer steps: four minutes for the default settings
SIDE = 192  # of the crops, in pixels: the largest on which MDIQA-lite's dimensions are trained
Objective = Callable[[Tensor, Tensor], Tensor]


def steered_objective(metric: MultiDimensional, weight: float, **dimensions: float) -> Objective:
    """L1 plus the steered quality, a scalar of restored and clean images (N, 3, H, W)."""
    quality = Loss(DimensionMean(metric), weight)  # 1. a metric becomes a loss
    metric.set_weights(torch.ones(len(metric.dimension_names)), **dimensions)  # 2. you say what counts, at any step
    # 3. it is added; clamped, because beyond black and white there is nothing to see and L1 alone pulls back
    return lambda restored, clean: F.l1_loss(restored, clean) + quality(restored.clamp(0, 1))


class Restorer(nn.Module):
    """Soft and noisy images (N, 3, h, w) to (N, 3, 2h, 2w): bicubic enlargement plus the output of a residual network.

    All layers work on the small grid. Untrained, it is bicubic enlargement. Values may leave [0, 1] slightly.
    """

    def __init__(self, width: int = 32, blocks: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(blocks)
        )
        self.last = nn.Conv2d(width, 12, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, low: Tensor) -> Tensor:
        """The restored images."""
        x = self.first(low)
        for block in self.blocks:
            x = x + block(x)
        return enlarge(low) + F.pixel_shuffle(self.last(x), 2)


def enlarge(low: Tensor) -> Tensor:
    """Enlarges by 2, bicubic."""
    return F.interpolate(low, scale_factor=2, mode="bicubic")


def degrade(image: Tensor, random: Random, shots: int = 1) -> Tensor:
    """Blurs, halves and adds sensor noise to a clean image (3, H, W): (shots, 3, H / 2, W / 2).

    Several shots differ only in their noise.
    """
    soft = blur(image, gaussian(random.uniform(0.5, 1.5)))
    small = F.interpolate(soft[None], scale_factor=0.5, mode="bicubic", antialias=True)[0].clamp(0, 1)
    noise = random.uniform(0.4, 0.7)
    return torch.stack([photon_noise(small, noise, random) for _ in range(shots)])


def batches(
    images: Sequence[Tensor], steps: int, seed: int, size: int = 2, side: int = SIDE
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields degraded and clean crops, (N, 3, side / 2, side / 2) and (N, 3, side, side), reproducible by seed."""
    random = Random(seed)
    for _ in range(steps):
        crops = []
        for image in random.choices(images, k=size):
            top, left = (random.randint(0, length - side) for length in image.shape[1:])
            crop = image[:, top : top + side, left : left + side]
            crops.append(crop.flip(2) if random.random() < 0.5 else crop)
        yield torch.cat([degrade(crop, random) for crop in crops]), torch.stack(crops)


def train(
    network: nn.Module,
    images: Sequence[Tensor],
    objective: Objective,
    steps: int,
    rate: float,
    seed: int = 0,
    slowest: float = math.inf,
) -> list[float]:
    """Trains the network in place; returns the objective at every step.

    If steps take longer than `slowest` seconds on average, fewer are made, through the same schedule.
    """
    optimizer = torch.optim.Adam(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    device, losses = next(network.parameters()).device, []
    pace = Pace(steps, steps * slowest)
    for low, clean in batches(images, steps, seed):
        loss = objective(network(low.to(device)), clean.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        for _ in range(pace.advance()):
            schedule.step()
        if pace.is_over:
            break
    return losses


@torch.no_grad()
def restore_images(network: Callable[[Tensor], Tensor], shots: Sequence[Tensor]) -> list[Tensor]:
    """Restores the degraded shots (2, 3, h, w) of each image."""
    return [network(each).clamp(0, 1) for each in shots]


def photographs(folder: Path | None) -> list[Tensor]:
    """The images in a folder, or scikit-image's, each (3, H, W) in [0, 1]."""
    if folder:
        return [mdiqa_metric.read_image(path)[0] for path in list_images([folder])]
    return [torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1) / 255 for name in PHOTOGRAPHS]


def split(images: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Train images and, every fourth one, held-out images, cropped to even sides.

    Raises:
        ValueError: there are fewer than two, or one is smaller than a crop.
    """
    least = min((min(image.shape[1:]) for image in images), default=0)
    if len(images) < 2 or least < SIDE:
        raise ValueError(
            f"Training needs at least two images of at least {SIDE} x {SIDE} pixels, got {len(images)} with a "
            f"shortest side of {least}: give more or larger ones."
        )
    even = [image[:, : image.shape[1] // 2 * 2, : image.shape[2] // 2 * 2] for image in images]
    return [image for index, image in enumerate(even) if index % 4], even[::4]


def compare(
    metric: MultiDimensional,
    images: Sequence[Tensor],
    settings: Sequence[dict[str, float]],
    out: Path,
    steps: int = STEPS,
    weight: float = 0.15,
    seed: int = 0,
    slowest: float = math.inf,
) -> dict[str, Figures]:
    """Trains a network per setting, and writes how well each restores the held-out images to `out`."""
    for setting in settings:
        metric.set_weights(**setting)  # reports a wrong name now, not after minutes
    device = next(metric.parameters()).device
    train_images, held_out = split(images)
    torch.manual_seed(seed)
    base = Restorer().to(device)
    started = time.perf_counter()
    use_fastest_threads(lambda: train(copy.deepcopy(base), train_images, F.l1_loss, 5, 1e-3, seed))
    losses = train(base, train_images, F.l1_loss, 4 * steps, 1e-3, seed, slowest)
    print(
        f"L1 alone: {_made(losses, 4 * steps)}, {time.perf_counter() - started:.0f} s, L1 {_last(losses):.4f}",
        flush=True,
    )

    references = [image.to(device) for image in held_out]
    low = [degrade(image, Random(index), shots=2).to(device) for index, image in enumerate(held_out)]
    versions = {"bicubic": [enlarge(shots).clamp(0, 1) for shots in low]}
    named = {", ".join(f"{name} {value:g}" for name, value in setting.items()): setting for setting in settings}
    for name, setting in {"off": None, "neutral": {}, **named}.items():
        network = copy.deepcopy(base)
        objective = F.l1_loss if setting is None else steered_objective(metric, weight, **setting)
        losses = train(network, train_images, objective, steps, 5e-4, seed + 1, slowest)
        made = f"{_made(losses, steps)} more, {time.perf_counter() - started:.0f} s"
        print(f"{name}: {made}, loss {_last(losses):.4f}", flush=True)
        versions[name] = restore_images(network, low)
    versions["reference"] = [image.expand(2, -1, -1, -1) for image in references]
    figures = {name: measure(metric, shots, references) for name, shots in versions.items()}

    out.mkdir(parents=True, exist_ok=True)
    with (out / "steer.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["version", *figures["off"]])
        writer.writerows([name, *(f"{value:.6g}" for value in row.values())] for name, row in figures.items())
    draw(out / "steer.png", versions, figures)
    show(figures, len(held_out))
    return figures


def _made(losses: Sequence[float], steps: int) -> str:
    if len(losses) == steps:
        return f"{steps} steps"
    return f"{len(losses)} of {steps} steps because they are slow here (--steps {STEPS} makes all)"


def _last(losses: Sequence[float]) -> float:
    return sum(losses[-20:]) / len(losses[-20:])


def show(figures: dict[str, Figures], count: int) -> None:
    """Prints the table of means, one row per version."""
    title = f"Mean over {count} held-out images"
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("version", no_wrap=True)
    for name in figures["off"]:
        table.add_column(name, justify="right")
    for name, row in figures.items():
        table.add_row(name, *(f"{value:.3f}" for value in row.values()))
    Console(width=max(150, Console().width)).print(table)


def draw(path: Path, versions: dict[str, list[Tensor]], figures: dict[str, Figures], side: int = 160) -> None:
    """Draws the middle of up to four images, one column per version, with the means below."""
    rows = min(4, len(versions["reference"]))
    figure, axes = plt.subplots(rows, len(versions), figsize=(2.4 * len(versions), 2.5 * rows + 0.7), squeeze=False)
    for column, (name, images) in zip(axes.T, versions.items(), strict=True):
        for axis, (image, _) in zip(column, images, strict=False):
            top, left = (max(0, length - side) // 2 for length in image.shape[1:])
            axis.imshow(image[:, top : top + side, left : left + side].permute(1, 2, 0).cpu().numpy())
            axis.set_xticks([])
            axis.set_yticks([])
        column[0].set_title(name)
        shown = ("PSNR", "edge gain", "residual noise")
        column[-1].set_xlabel("\n".join(f"{key} {figures[name][key]:.3g}" for key in shown))
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _weight(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, float(value)


def main() -> None:
    """Reads the command line and runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        nargs="+",
        type=_weight,
        metavar="NAME=WEIGHT",
        help="weights of one setting; may be repeated (default: sharpness=2, and noisiness=2)",
    )
    parser.add_argument("--weight", type=float, default=0.15, help="of the quality, L1 having weight 1")
    parser.add_argument("--data", type=Path, help="a folder of clean images (default: scikit-image's)")
    parser.add_argument(
        "--steps",
        type=int,
        help=f"per setting, after four times as many with L1 alone (default: {STEPS}, fewer on a slow machine)",
    )
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    images = photographs(options.data)
    settings = options.settings or [[("sharpness", 2.0)], [("noisiness", 2.0)]]
    metric = mdiqa_metric.create("mdiqa-lite").to(options.device)
    chosen = [dict(setting) for setting in settings]
    steps, slowest = (STEPS, SLOWEST) if options.steps is None else (options.steps, math.inf)
    compare(metric, images, chosen, options.out, steps, options.weight, options.seed, slowest)
    print(f"Wrote {options.out / 'steer.csv'} and {options.out / 'steer.png'}.")


if __name__ == "__main__":
    main()
