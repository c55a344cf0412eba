"""Quality of restored images: MDIQA-lite's scores, fidelity to references, and measures that use no model."""

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
    """Sharpness: the energy of the luma differences of the image over that of its reference, 1 if they are equal."""
    differences, of_reference = _luma_differences(image), _luma_differences(reference)
    return (differences.square().sum() / of_reference.square().sum()).item()


def edge_gain(image: Tensor, reference: Tensor) -> float:
    """Sharpness that noise and invented texture do not increase: how much of the reference's differences is present.

    The least-squares factor from the reference's luma differences to the image's: 1 if they are equal, less for blur,
    more for halos.
    """
    differences, of_reference = _luma_differences(image), _luma_differences(reference)
    return ((differences * of_reference).sum() / of_reference.square().sum()).item()


def flat_deviation(image: Tensor, reference: Tensor, side: int = 8) -> float:
    """Grain of any kind, on the scale of 0 to 255: 1.4826 MAD in the flattest tenth of the reference's blocks.

    The median over these blocks; nearly black or white ones, which hide noise, are left out. References are not at 0.
    """
    blocks, of_reference = (F.unfold(luma(each)[None], side, stride=side)[0] for each in (image, reference))
    visible = (of_reference.mean(0) - 0.5).abs() < 0.4
    blocks, spread = blocks[:, visible], of_reference[:, visible].std(0)
    flattest = blocks[:, spread.argsort()[: max(1, len(spread) // 10)]]
    return 255 * 1.4826 * (flattest - flattest.median(0).values).abs().median(0).values.median().item()


def residual_noise(shots: Tensor, reference: Tensor) -> float:
    """Remaining noise without texture, on the scale of 0 to 255, from two restored shots (2, 3, H, W) of one scene.

    The flat deviation of their difference over the square root of 2.
    """
    return flat_deviation((shots[0] - shots[1]) / 2**0.5, reference)


def _luma_differences(image: Tensor) -> Tensor:
    gray = luma(image)[0]
    return torch.stack([gray[1:, 1:] - gray[:-1, 1:], gray[1:, 1:] - gray[1:, :-1]])


ON_ONE_SHOT = {"gradient energy": gradient_energy, "edge gain": edge_gain, "flat deviation": flat_deviation}


@torch.no_grad()
def measure(metric: MultiDimensional, versions: Sequence[Tensor], references: Sequence[Tensor]) -> Figures:
    """Means over images: our scores, fidelity, and the measures above.

    Args:
        metric: the metric whose dimensions are measured.
        versions: two restored shots (2, 3, H, W) of each image, in [0, 1]; all but the residual noise is measured on
            the first.
        references: (3, H, W) each, in [0, 1].
    """
    psnr, stlpips = (mdiqa_metric.create(name).to(references[0].device) for name in ("psnr", "stlpips-alex"))
    rows = []
    for shots, reference in zip(versions, references, strict=True):
        first, clean = shots[:1], reference[None]
        row = dict(zip(metric.dimension_names, metric.dimensions(first)[0].tolist(), strict=True))
        row |= {"PSNR": psnr(first, clean).item(), "ST-LPIPS": stlpips(first, clean).item()}
        shots, reference = shots.cpu(), reference.cpu()
        row |= {name: function(shots[0], reference) for name, function in ON_ONE_SHOT.items()}
        rows.append(row | {"residual noise": residual_noise(shots, reference)})
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
