"""What MDIQA-lite is trained to minimize: four losses, each of a random batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metrics.mdiqa_lite import MDIQALite, luma_and_differences
from .distortions import DISTORTIONS, blur, denoiser, gaussian
from .losses import pairwise_ranking_loss, plcc_loss, soft_hinge
from .mdiqa_lite_data import Images, Rated, draw_triplets, random_crop

# The target score of each dimension of a clean image; better ones have room above.
CLEAN_SCORE = 0.9


def opinion_loss(metric: MDIQALite, rated: Sequence[Rated], count: int, side: int, random: Random) -> Tensor:
    """How far the overall scores of `count` random crops are from the opinions of their images, a scalar.

    `2 smooth_l1 + 0.5 (1 - PLCC) + ranking loss`.
    """
    chosen = random.sample(rated, count)
    crops = torch.stack([random_crop(image.pixels, side, random) for image in chosen])
    scores = metric(crops.to(metric.shares.device)).cpu()
    opinions = torch.tensor([image.mos for image in chosen])
    return (
        2 * F.smooth_l1_loss(scores, opinions, beta=0.1)
        + 0.5 * plcc_loss(scores, opinions)
        + pairwise_ranking_loss(scores, opinions)
    )


def dimension_loss(metric: MDIQALite, images: Images, count: int, side: int, random: Random) -> Tensor:
    """How far the dimensions are from following the severities of `count` triplets, a scalar.

    The distorted dimension must fall with severity and the others must stay. For clean images the level counts too:
    `CLEAN_SCORE * (1 - severity)` for the distorted dimension, at least `CLEAN_SCORE` for the others.
    """
    indices = range(len(metric.dimension_names))
    triplets = draw_triplets(metric.dimension_names, images, count, side, random, indices)
    batch = torch.cat([triplet.images for triplet in triplets])
    dimensions = metric.dimensions(batch.to(metric.shares.device)).cpu()
    loss = torch.zeros(())
    for scores, (_, index, severity, is_clean) in zip(dimensions.split(3), triplets, strict=True):
        own, others = scores[:, index], [other for other in indices if other != index]
        steps = (0.3 if is_clean else 0.15) * severity.diff()
        loss = loss + 2 * soft_hinge(-own.diff(), steps).mean() / count
        loss = loss + 0.5 / count * (scores[1:, others] - scores[:1, others].detach()).abs().mean()
        if is_clean:
            loss = loss + F.smooth_l1_loss(own, CLEAN_SCORE * (1 - severity), beta=0.1) / count
            loss = loss + 0.2 / count * (CLEAN_SCORE - scores[0, others]).relu().mean()
    return loss


def overall_ranking_loss(metric: MDIQALite, images: Images, count: int, side: int, random: Random) -> Tensor:
    """How far the overall score is from falling with severity over `count` triplets, JPEG included, a scalar."""
    indices = range(len(metric.dimension_names) + 1)
    triplets = draw_triplets(metric.dimension_names, images, count, side, random, indices)
    batch = torch.cat([triplet.images for triplet in triplets])
    scores = metric(batch.to(metric.shares.device)).view(count, 3).cpu()
    severity = torch.stack([triplet.severity for triplet in triplets])
    return soft_hinge(-scores.diff(), 0.1 * severity.diff()).mean()


def gradient_alignment_loss(metric: MDIQALite, clean: Sequence[Tensor], count: int, random: Random) -> Tensor:
    """How far the gradients of noisiness and sharpness are from pointing to the clean image, a scalar.

    Both are taken at soft and noisy images, or where a few steps of gradient ascent have led from there, as in the
    training of a restoration network. Noisiness must point away from the noise and sharpness towards the detail that
    the blur removed, measured by cosine similarity, and neither against the other. Noisiness must also be higher
    without the noise, and sharpness in the clean image.

    Args:
        metric: the metric in training.
        clean: clean images (3, H, W) in uint8.
        count: how many crops.
        random: the source of randomness.
    """
    noise, sharp = (metric.dimension_names.index(name) for name in ("noisiness", "sharpness"))
    sharp_images, soft, noisy = (each.to(metric.shares.device) for each in _degrade_crops(clean, count, random))
    chosen = list(random.choice(((noise,), (sharp,), range(len(metric.dimension_names)))))
    noisy = _ascend(lambda image: metric.dimensions(image)[:, chosen].mean(1), noisy, random)
    noisy.requires_grad_()
    dimensions = metric.dimensions(torch.cat([noisy, soft, sharp_images]))
    gradients = [
        torch.autograd.grad(dimensions[:, index].sum(), noisy, create_graph=True)[0] for index in (noise, sharp)
    ]
    targets = [(soft - noisy).detach(), sharp_images - soft]
    # Color noise is easier to tell from the image than luma noise, which is more visible: luma counts more here.
    channel_weights = noisy.new_tensor([3.0, 1.0, 1.0])[:, None, None]
    targets, gradients = (
        [channel_weights * luma_and_differences(each) for each in part] for part in (targets, gradients)
    )
    cosines = [
        [F.cosine_similarity(gradient.flatten(1), target.flatten(1), eps=1e-12) for target in targets]
        for gradient in gradients
    ]
    own = 2 * (1 - cosines[0][0]) + (1 - cosines[1][1])  # noise is the harder one
    other = (-cosines[0][1]).relu() + (-cosines[1][0]).relu()
    of_noisy, of_soft, of_sharp = dimensions.split(count)
    gains = torch.stack([(of_soft - of_noisy)[:, noise], (of_sharp - of_noisy)[:, sharp]])
    return (own + other).mean() + soft_hinge(gains, 0.1).mean()


def _degrade_crops(clean: Sequence[Tensor], count: int, random: Random, side: int = 112) -> tuple[Tensor, ...]:
    """Clean crops, blurred ones, and blurred and noisy ones, (count, 3, side, side) each.

    The noise is added before the blur, after it, or as a denoiser leaves it.
    """
    sharp, soft, noisy = [], [], []
    for _ in range(count):
        image, window = random_crop(random.choice(clean), side, random), gaussian(random.uniform(0.5, 2))
        add_noise = random.choice(DISTORTIONS["noisiness"]).apply
        strength, order = random.uniform(0.1, 0.6), random.random()
        blurred = blur(image, window)
        if order < 0.5:  # as restoration leaves it: stronger noise, little in flat areas and more at edges
            degraded = add_noise(blurred, strength + 0.2, random)
            denoise = denoiser(degraded, (degraded - blurred).square().mean(), random)
            blurred, degraded = denoise(blurred), denoise(degraded)
        elif order < 0.75:
            degraded = blur(add_noise(image, strength, random), window)
        else:
            degraded = add_noise(blurred, strength, random)
        sharp.append(image)
        soft.append(blurred)
        noisy.append(degraded)
    return torch.stack(sharp), torch.stack(soft), torch.stack(noisy)


def _ascend(score: Callable[[Tensor], Tensor], image: Tensor, random: Random) -> Tensor:
    """The image after zero to four signed-gradient steps up the score."""
    rate = random.choice((0.5, 1, 2)) / 255
    for _ in range(random.choice((0, 0, 1, 2, 4))):
        image = image.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(score(image).sum(), image)
        image = (image.detach() + rate * gradient.sign()).clamp(0, 1)
    return image.detach()
