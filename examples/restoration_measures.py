"""How good restored images are: MDIQA-lite's scores, fidelity to references, and measures that ask no model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

import mdiqa_metric
from mdiqa_metric import MultiDimensional
from mdiqa_metric.train.distortions import luma

Figures = dict[str, float]


def gradient_energy(image: Tensor, reference: Tensor) -> float:
    """Sharpness without a model: the energy of the gray image's differences over its reference's, 1 where alike."""
    ours, theirs = _differences(image), _differences(reference)
    return (ours.square().sum() / theirs.square().sum()).item()


def edge_gain(image: Tensor, reference: Tensor) -> float:
    """Sharpness that noise and invented texture don't add to: how much of the reference's differences is there.

    Least squares of the image's on the reference's; 1 where alike, below for blur, above for halos.
    """
    ours, theirs = _differences(image), _differences(reference)
    return ((ours * theirs).sum() / theirs.square().sum()).item()


def flat_deviation(image: Tensor, reference: Tensor, side: int = 8) -> float:
    """Grain of any kind, of 255: robust deviation (1.4826 MAD) in the flattest tenth of the reference's blocks.

    The median over these blocks, but for those nearly black or white, which hide noise. The reference has some too.
    """
    ours, theirs = (F.unfold(luma(each)[None], side, stride=side)[0] for each in (image, reference))
    shown = (theirs.mean(0) - 0.5).abs() < 0.4
    ours, spread = ours[:, shown], theirs[:, shown].std(0)
    flattest = ours[:, spread.argsort()[: max(1, len(spread) // 10)]]
    return 255 * 1.4826 * (flattest - flattest.median(0).values).abs().median(0).values.median().item()


def residual_noise(shots: Tensor, reference: Tensor) -> float:
    """Noise that came through, of 255, texture left out: what two restored shots (2, 3, H, W) of one scene differ by.

    The flat deviation of their difference over the root of 2.
    """
    return flat_deviation((shots[0] - shots[1]) / 2**0.5, reference)


def _differences(image: Tensor) -> Tensor:
    gray = luma(image)[0]
    return torch.stack([gray[1:, 1:] - gray[:-1, 1:], gray[1:, 1:] - gray[1:, :-1]])


ON_ONE_SHOT = {"gradient energy": gradient_energy, "edge gain": edge_gain, "flat deviation": flat_deviation}


@torch.no_grad()
def measure(metric: MultiDimensional, versions: Sequence[Tensor], references: Sequence[Tensor]) -> Figures:
    """Means over images, each two restored shots (2, 3, H, W) and a reference (3, H, W), all in [0, 1].

    All but the noise is measured on the first shot: our scores, fidelity, and what no model says.
    """
    psnr, stlpips = (mdiqa_metric.create(name).to(references[0].device) for name in ("psnr", "stlpips-alex"))
    rows = []
    for shots, reference in zip(versions, references, strict=True):
        first, clean = shots[:1], reference[None]
        row = dict(zip(metric.dimension_names, metric.dimensions(first)[0].tolist(), strict=True))
        row |= {"PSNR": psnr(first, clean).item(), "ST-LPIPS": stlpips(first, clean).item()}
        shots, reference = shots.cpu(), reference.cpu()
        row |= {name: measured(shots[0], reference) for name, measured in ON_ONE_SHOT.items()}
        rows.append(row | {"residual noise": residual_noise(shots, reference)})
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
