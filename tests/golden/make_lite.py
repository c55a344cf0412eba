"""Makes mdiqa-lite.json, what the embedded MDIQA-lite scores: `python -m tests.golden.make_lite`.

There is no other implementation of it, so this file holds that nothing moves its scores unseen: run it after a new
training, and name that under "Scores" in the CHANGELOG.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

import mdiqa_metric
from tests.golden import golden

SHAPES = ((1, 256, 256), (2, 384, 512), (3, 225, 333), (4, 96, 64), (5, 240, 320))


def main() -> None:
    """Scores the images and writes the file."""
    metric = mdiqa_metric.create("mdiqa-lite")
    cases = []
    for seed, height, width in SHAPES:
        image = torch.from_numpy(golden.picture(seed, height, width))[None].requires_grad_()
        score = metric(image)
        weights = metric.instance_weights(image) * metric.user_weights(image)
        extra = {"dimensions": metric.dimensions(image)[0].tolist(), "weights": weights[0].tolist()}
        case = {"picture": {"seed": seed, "height": height, "width": width}, "ref": None, "options": {}}
        case |= {"score": score.item(), "extra": extra}
        if seed == 1:
            (gradient,) = torch.autograd.grad(score.sum(), image)
            flat = gradient.flatten()
            places = [index * (flat.numel() // 16) for index in range(16)]
            case["grad"] = {
                "mean_abs": flat.abs().mean().item(),
                "l2": flat.norm().item(),
                "first": flat[:8].tolist(),
                "at": {str(index): flat[index].item() for index in places},
            }
            case["score64"] = metric.double()(image.detach().double()).item()
            metric.float()
        cases.append(case)
    data = {
        "metric": "mdiqa-lite",
        "reference": "mdiqa_metric's own, embedded weights",
        "kind": "NR",
        "lower_better": False,
        "checkpoint": {},
        "real": "all",
        "cases": cases,
    }
    Path(__file__).with_name("mdiqa-lite.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
