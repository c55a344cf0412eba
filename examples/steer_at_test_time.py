"""Trains one restoration network with two knobs that are set at test time: how sharp, and how clean.

    python examples/steer_at_test_time.py --out out
    python examples/steer_at_test_time.py --steps 2000 --data photographs

The network of steer_restoration.py also takes weights of sharpness and noisiness, which scale and shift its features
(FiLM, Perez et al., "FiLM: visual reasoning with a general conditioning layer", AAAI 2018). In training each image gets
random weights, and MDIQA-lite scores it under the same weights: `set_weights` takes one row per image. A held-out image
is then restored under a grid of weights and drawn to `knobs.png`. Takes two and a half minutes on two cores.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import steer_restoration as example
import torch
import torch.nn.functional as F
from steer_restoration import plt
from torch import Tensor, nn

import mdiqa_metric
from mdiqa_metric import DimensionMean, Loss, MultiDimensional

KNOBS = ("sharpness", "noisiness")
RANGE = (0.25, 4.0)  # of the random weights


class SteerableRestorer(example.Restorer):
    """`Restorer` with weights of sharpness and noisiness (N, 2), which scale and shift the output of each block."""

    def __init__(self, width: int = 32, blocks: int = 6) -> None:
        super().__init__(width, blocks)
        self.film = nn.Sequential(nn.Linear(len(KNOBS), 32), nn.ReLU(), nn.Linear(32, 2 * blocks * width))
        nn.init.zeros_(self.film[2].weight)  # untrained, the knobs have no effect
        nn.init.zeros_(self.film[2].bias)

    def forward(self, low: Tensor, weights: Tensor) -> Tensor:
        """The restored images (N, 3, 2h, 2w) of (N, 3, h, w)."""
        moves = self.film(weights.log2() / 2).view(len(low), len(self.blocks), 2, -1, 1, 1)
        x = self.first(low)
        for block, (scale, shift) in zip(self.blocks, moves.permute(1, 2, 0, 3, 4, 5), strict=True):
            x = x + (1 + scale) * block(x) + shift
        return example.enlarge(low) + F.pixel_shuffle(self.last(x), 2)


def train(
    network: SteerableRestorer,
    metric: MultiDimensional,
    images: Sequence[Tensor],
    steps: int,
    rate: float = 5e-4,
    weight: float = 0.15,
    seed: int = 0,
) -> None:
    """Trains the network in place, with random weights for each image."""
    quality = Loss(DimensionMean(metric), weight)
    optimizer = torch.optim.Adam(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    device, random = next(network.parameters()).device, Random(seed)
    columns = [metric.dimension_names.index(name) for name in KNOBS]
    for low, clean in example.batches(images, steps, seed):
        drawn = [[math.exp(random.uniform(*map(math.log, RANGE))) for _ in KNOBS] for _ in low]
        weights = torch.tensor(drawn, device=device)
        rows = torch.ones(len(low), len(metric.dimension_names), device=device)
        rows[:, columns] = weights
        metric.set_weights(rows)
        restored = network(low.to(device), weights)
        loss = F.l1_loss(restored, clean.to(device)) + quality(restored.clamp(0, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    metric.set_weights(torch.ones(len(metric.dimension_names)))


def set_knobs(network: SteerableRestorer, **weights: float) -> Callable[[Tensor], Tensor]:
    """The network with its knobs at these weights; 1 for those not named."""

    def restore(low: Tensor) -> Tensor:
        row = torch.tensor([weights.get(name, 1.0) for name in KNOBS], device=low.device)
        return network(low, row.expand(len(low), -1))

    return restore


@torch.no_grad()
def draw(path: Path, network: SteerableRestorer, low: Tensor, clean: Tensor, side: int = 128) -> None:
    """Draws the middle of an image under each pair of weights, the bicubic enlargement and the reference."""
    weights = (0.25, 1.0, 4.0)
    figure, axes = plt.subplots(3, 4, figsize=(10, 8))
    shown = {axes[0, 3]: ("bicubic", example.enlarge(low)), axes[1, 3]: ("reference", clean[None])}
    for row, sharpness in enumerate(weights):
        for column, noisiness in enumerate(weights):
            made = set_knobs(network, sharpness=sharpness, noisiness=noisiness)(low)
            shown[axes[row, column]] = (f"sharpness {sharpness:g}, noisiness {noisiness:g}", made)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, image) in shown.items():
        top, left = (max(0, length - side) // 2 for length in image.shape[2:])
        crop = image[0, :, top : top + side, left : left + side].clamp(0, 1)
        axis.imshow(crop.permute(1, 2, 0).cpu().numpy())
        axis.set_title(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Reads the command line and runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of clean images (default: scikit-image's)")
    parser.add_argument("--steps", type=int, default=600, help="with the knobs, after 800 with L1 alone")
    parser.add_argument("--weight", type=float, default=0.15, help="of the quality, L1 having weight 1")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    train_images, held_out = example.split(example.photographs(options.data))
    torch.manual_seed(options.seed)
    plain = example.Restorer().to(options.device)
    example.train(plain, train_images, F.l1_loss, 800, 1e-3, options.seed)
    network = SteerableRestorer().to(options.device)
    network.load_state_dict(plain.state_dict(), strict=False)
    metric = mdiqa_metric.create("mdiqa-lite").to(options.device)
    train(network, metric, train_images, options.steps, weight=options.weight, seed=options.seed + 1)
    low = example.degrade(held_out[0], Random(0)).to(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    draw(options.out / "knobs.png", network, low, held_out[0])
    for name in KNOBS:
        for weight in (0.25, 1.0, 4.0):
            with torch.no_grad():
                scores = metric.dimensions(set_knobs(network, **{name: weight})(low).clamp(0, 1))[0].tolist()
            values = ", ".join(f"{key} {score:.3f}" for key, score in zip(metric.dimension_names, scores, strict=True))
            print(f"{name} {weight:g}: {values}")
    print(f"Wrote {options.out / 'knobs.png'}.")


if __name__ == "__main__":
    main()
