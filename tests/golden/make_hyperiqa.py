"""Makes hyperiqa-authors.json: HyperIQA in the authors' key layout, on images resized as their demo does.

Written on torchvision's ResNet-50 from the authors' program (github.com/SSL92/hyperIQA, MIT), whose functions it keeps;
the authors' random crops are those of an even grid. It first gives the scores of hyperiqa.json.

    python -m tests.golden.make_hyperiqa
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.transforms.functional import normalize, resize

from tests.golden import golden
from tests.rows import content, filled

State = dict[str, Tensor]
CROPS = 4
# pyiqa's names, and the authors'.
NAMES = (
    (r"base_model\.(.+)", r"res.\1"),
    (r"lda_modules\.([012])\.0\.(.+)", r"res.lda{}_pool.0.\2"),
    (r"lda_modules\.(\d)\.[23]\.(.+)", r"res.lda{}_fc.\2"),
    (r"fc_w_modules\.([0123])\.(weight|bias)", r"fc{}w_conv.\2"),
    (r"fc_w_modules\.(4)\.2\.(.+)", r"fc{}w_fc.\2"),
    (r"fc_b_modules\.(\d)\.2\.(.+)", r"fc{}b_fc.\2"),
)
# Where the sigmoids would hide what the first stages say.
LOUDER = {f"res.lda{level}_fc.weight": 4.0 for level in (1, 2, 3)}


def main() -> None:
    """Checks the implementation on the other file, then writes this one."""
    known = content("hyperiqa")
    state = {authors_name(key): value for key, value in filled(known["checkpoint"], known).items()}
    for case in known["cases"][:2]:
        with torch.no_grad():
            assert abs(score(state, picture(case), 25).item() - case["score"]) < 1e-5, "this is not HyperIQA"
    data = {
        "reference": "tests/golden/make_hyperiqa.py, which scores hyperiqa.json to 1e-5",
        "preprocess": f"resized to 512 x 384 (antialiased bilinear), {CROPS} crops on an even grid",
        "kind": "NR",
        "lower_better": False,
        "checkpoint": {authors_name(key): shape for key, shape in known["checkpoint"].items()},
        "scale": {authors_name(key): value for key, value in known["scale"].items()} | LOUDER,
        "cases": [],
    }
    state = filled(data["checkpoint"], data)
    double = {key: value.double() if value.is_floating_point() else value for key, value in state.items()}
    for index, old in enumerate(known["cases"]):
        with torch.no_grad():
            value = score(state, resize(picture(old), [512, 384], antialias=True), CROPS).item()
        case = {"picture": old["picture"], "ref": None, "options": {}, "score": value}
        if index == 0:
            image = picture(old).double().requires_grad_()
            exact = score(double, resize(image, [512, 384], antialias=True), CROPS)
            flat = torch.autograd.grad(exact, image)[0].flatten()  # in float32, ReLUs' kinks would move it by 0.2 %
            places = [math.floor((i + 1) * flat.numel() / 17) for i in range(16)]
            case["score64"] = exact.item()
            case["grad"] = {
                "mean_abs": flat.abs().mean().item(),
                "l2": flat.norm().item(),
                "first": flat[:8].tolist(),
                "at": {str(place): flat[place].item() for place in places},
            }
        data["cases"].append(case)
    Path(__file__).with_name("hyperiqa-authors.json").write_text(json.dumps(data, indent=1) + "\n")


def authors_name(key: str) -> str:
    """The authors' name of a tensor that pyiqa names `key`."""
    for theirs, ours in NAMES:
        if found := re.fullmatch(theirs, key):
            level = int(found[1]) + 1 if found[1].isdigit() else 0
            return found.expand(ours).format(level)
    return key


def picture(case: dict) -> Tensor:
    """The image (1, 3, H, W) of a case."""
    return torch.from_numpy(golden.picture(*(case["picture"][key] for key in ("seed", "height", "width"))))[None]


def score(state: State, image: Tensor, count: int) -> Tensor:
    """The mean over `count` crops of an image (1, 3, H, W)."""
    side, (height, width) = math.isqrt(count), image.shape[-2:]
    crops = [
        image[..., top : top + 224, left : left + 224]
        for top in [row * ((height - 224) // side) for row in range(side)]
        for left in [column * ((width - 224) // side) for column in range(side)]
    ]
    crops = normalize(torch.cat(crops), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return torch.stack([score_crop(state, each[None]) for each in crops]).mean()


def score_crop(state: State, image: Tensor) -> Tensor:
    """The score of one normalized crop (1, 3, 224, 224)."""
    network = resnet50().eval().to(image.dtype).requires_grad_(False)
    network.fc = nn.Identity()
    backbone = {key: value for key, value in state.items() if key.startswith("res.") and ".lda" not in key}
    network.load_state_dict({key.removeprefix("res."): value for key, value in backbone.items()})
    x = network.maxpool(network.relu(network.bn1(network.conv1(image))))
    values = []
    for level in range(1, 5):
        x = getattr(network, f"layer{level}")(x)
        y = F.conv2d(x, state[f"res.lda{level}_pool.0.weight"]) if level < 4 else x
        values.append(linear(state, f"res.lda{level}_fc", F.avg_pool2d(y, 7, 7).flatten()))
    for index in (0, 2, 4):
        x = F.conv2d(x, state[f"conv1.{index}.weight"], state[f"conv1.{index}.bias"]).relu()
    mean, vector = x.mean((0, 2, 3)), torch.cat(values)
    for layer, (before, after) in enumerate(((224, 112), (112, 56), (56, 28), (28, 14)), 1):
        name = f"fc{layer}w_conv"
        weight = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1).reshape(after, before)
        vector = (weight @ vector + linear(state, f"fc{layer}b_fc", mean)).sigmoid()
    return linear(state, "fc5w_fc", mean) @ vector + linear(state, "fc5b_fc", mean)[0]


def linear(state: State, name: str, x: Tensor) -> Tensor:
    """A fully connected layer."""
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


if __name__ == "__main__":
    main()
