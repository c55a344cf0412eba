"""MDIQA-lite's figures on held-out images: agreement with opinions, and response to distortions."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..evaluation.agreement import agreement
from ..metrics.mdiqa_lite import MDIQALite
from ..optional import import_optional
from .distortions import DISTORTIONS
from .mdiqa_lite_data import Images, center_crop, to_batch

STRENGTHS = (0.0, 0.15, 0.3, 0.5, 0.7, 0.9)


@torch.no_grad()
def validate(metric: MDIQALite, held_out: Images) -> dict[str, Any]:
    """Figures on held-out images.

    * "photographs", "distorted": `agreement` of the overall score with the opinions;
    * "dimensions": SRCC of each dimension with the photographs' opinions;
    * "ladders", "cross_talk": see `measure_ladders`.
    """
    figures: dict[str, Any] = {}
    for name in ("photographs", "distorted"):
        rated = getattr(held_out, name)
        opinions = [image.mos for image in rated]
        figures[name] = agreement([metric(to_batch(image, metric)).item() for image in rated], opinions)
    scores = np.array([metric.dimensions(to_batch(image, metric))[0].tolist() for image in held_out.photographs])
    opinions = [image.mos for image in held_out.photographs]
    figures["dimensions"] = {
        dimension: _spearman(scores[:, index], opinions) for index, dimension in enumerate(metric.dimension_names)
    }
    best = sorted(held_out.photographs, key=lambda image: -image.mos)[:4]
    images = [center_crop(pixels / 255, 288) for pixels in (*held_out.clean, *(image.pixels for image in best))]
    figures["ladders"], figures["cross_talk"] = measure_ladders(metric, images)
    return figures


@torch.no_grad()
def measure_ladders(
    metric: MDIQALite, images: Sequence[Tensor]
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """How the dimensions respond to distortions of growing strength.

    Args:
        metric: the metric.
        images: (3, H, W) in [0, 1] each, sizes may differ.

    Returns:
        For each dimension and distortion of it, minus Spearman's correlation of score and strength, averaged over
        images, 1 being perfect; and the cross-talk, for each distorted dimension (first key) and each dimension
        (second), the mean absolute change in score.
    """
    names = metric.dimension_names
    monotonicity: dict[str, dict[str, float]] = {}
    cross_talk: dict[str, dict[str, float]] = {}
    for index, name in enumerate(names):
        changes, monotonicity[name] = [], {}
        for distortion in DISTORTIONS[name]:
            correlations = []
            for number, image in enumerate(images):
                rungs = [image, *(distortion.apply(image, s, Random(number)) for s in STRENGTHS[1:])]
                scores = metric.dimensions(torch.stack(rungs).to(metric.shares.device)).cpu().numpy()
                correlations.append(-_spearman(scores[:, index], STRENGTHS))
                changes.append(np.abs(scores[1:] - scores[0]).mean(0))
            monotonicity[name][distortion.name] = float(np.mean(correlations))
        cross_talk[name] = dict(zip(names, np.mean(changes, 0).tolist(), strict=True))
    return monotonicity, cross_talk


def _spearman(scores: Any, others: Sequence[float]) -> float:
    """Spearman's correlation, or 0 where all scores are equal and have no rank."""
    return float(import_optional("scipy.stats").spearmanr(scores, others).statistic) if np.ptp(scores) > 0 else 0.0
