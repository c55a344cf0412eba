"""One restoration network with two knobs, turned when it is used: how sharp, and how clean.

    python examples/steer_at_test_time.py --out out
    python examples/steer_at_test_time.py --steps 2000 --data photographs

The network of steer_restoration.py also takes weights of sharpness and noisiness: they scale and shift its features
(FiLM, Perez et al., "FiLM: visual reasoning with a general conditioning layer", AAAI 2018). In training every image
draws weights of its own, and MDIQA-lite judges each under its own: `set_weights` takes a row an image. Then one image
that the network never saw is restored under a grid of weights, drawn to `knobs.png`. Two and a half minutes on two
cores.
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
RANGE = (0.25, 4.0)  # of the weights that are drawn


class SteerableRestorer(example.Restorer):
    """`Restorer` under weights of sharpness and noisiness (N, 2): like it with each block's output moved by them."""

    def __init__(self, width: int = 32, blocks: int = 6) -> None:
        super().__init__(width, blocks)
        self.film = nn.Sequential(nn.Linear(len(KNOBS), 32), nn.ReLU(), nn.Linear(32, 2 * blocks * width))
        nn.init.zeros_(self.film[2].weight)  # it begins as the network without knobs
        nn.init.zeros_(self.film[2].bias)

    def forward(self, low: Tensor, weights: Tensor) -> Tensor:
        """The restored images (N, 3, 2h, 2w) of (N, 3, h, w)."""
        moves = self.film(weights.log2() / 2).view(len(low), len(self.blocks), 2, -1, 1, 1)
        x = self.first(low)
        for block, (scale, shift) in zip(self.blocks, moves.permute(1, 2, 0, 3, 4, 5), strict=True):
            x = x + (1 + scale) * block(x) + shift
        return example.enlarged(low) + F.pixel_shuffle(self.last(x), 2)


def train(
    network: SteerableRestorer,
    metric: MultiDimensional,
    images: Sequence[Tensor],
    steps: int,
    rate: float = 5e-4,
    weight: float = 0.15,
    seed: int = 0,
) -> None:
    """Trains the network in place, under weights that every image draws anew."""
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


def turned(network: SteerableRestorer, **weights: float) -> Callable[[Tensor], Tensor]:
    """The network with its knobs at these weights; 1 where none is named."""

    def restore(low: Tensor) -> Tensor:
        row = torch.tensor([weights.get(name, 1.0) for name in KNOBS], device=low.device)
        return network(low, row.expand(len(low), -1))

    return restore


@torch.no_grad()
def draw(path: Path, network: SteerableRestorer, low: Tensor, clean: Tensor, side: int = 128) -> None:
    """The middle of an image under each pair of weights, beside the bicubic enlargement and the reference."""
    weights = (0.25, 1.0, 4.0)
    figure, axes = plt.subplots(3, 4, figsize=(10, 8))
    shown = {axes[0, 3]: ("bicubic", example.enlarged(low)), axes[1, 3]: ("reference", clean[None])}
    for row, sharpness in enumerate(weights):
        for column, noisiness in enumerate(weights):
            made = turned(network, sharpness=sharpness, noisiness=noisiness)(low)
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
    parser.add_argument("--weight", type=float, default=0.15, help="of the quality beside L1")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    learnt, kept = example.split(example.photographs(asked.data))
    torch.manual_seed(asked.seed)
    plain = example.Restorer().to(asked.device)
    example.train(plain, learnt, F.l1_loss, 800, 1e-3, asked.seed)
    network = SteerableRestorer().to(asked.device)
    network.load_state_dict(plain.state_dict(), strict=False)
    metric = mdiqa_metric.create("mdiqa-lite").to(asked.device)
    train(network, metric, learnt, asked.steps, weight=asked.weight, seed=asked.seed + 1)
    low = example.degraded(kept[0], Random(0)).to(asked.device)
    asked.out.mkdir(parents=True, exist_ok=True)
    draw(asked.out / "knobs.png", network, low, kept[0])
    for name in KNOBS:
        for weight in (0.25, 1.0, 4.0):
            with torch.no_grad():
                scores = metric.dimensions(turned(network, **{name: weight})(low).clamp(0, 1))[0].tolist()
            told = ", ".join(f"{key} {score:.3f}" for key, score in zip(metric.dimension_names, scores, strict=True))
            print(f"{name} {weight:g}: {told}")
    print(f"Wrote {asked.out / 'knobs.png'}.")


if __name__ == "__main__":
    main()
