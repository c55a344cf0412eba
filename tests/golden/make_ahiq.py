"""Makes ahiq-authors-224.json: AHIQ of one crop as its authors' program scores it, whose normalization pyiqa changed.

Needs the authors' repository (MIT), and first scores what ahiq-single-224.json holds:

    git clone https://github.com/IIGROUP/AHIQ && git -C AHIQ checkout ec704d2803cb8004e31d78fc81968e56802de64e
    PYTHONPATH=AHIQ python -m tests.golden.make_ahiq
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import timm
import torch
from model.deform_regressor import Pixel_Prediction, deform_fusion
from torch import Tensor, nn

from tests.golden import golden
from tests.rows import content, filled

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
AUTHORS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def main() -> None:
    """Checks the program on pyiqa's file and writes the other."""
    data = content("ahiq-single-224")
    score = program(data)
    for case in data["cases"][:2]:
        assert abs(score(*pair(case), IMAGENET).item() - case["score"]) < 1e-5
    data["cases"] = data["cases"][:2]
    for case in data["cases"]:
        image, reference = pair(case)
        if "grad" in case:
            image.requires_grad_()
        value = score(image, reference, AUTHORS)
        case["score"] = value.item()
        if "grad" in case:
            flat = torch.autograd.grad(value, image)[0].flatten()
            case["grad"] = {
                "mean_abs": flat.abs().mean().item(),
                "l2": flat.norm().item(),
                "first": flat[:8].tolist(),
                "at": {index: flat[int(index)].item() for index in case["grad"]["at"]},
            }
        case.pop("rerun_rel", None)
    data |= {
        "variant": "authors-224",
        "reference": "deform_fusion and Pixel_Prediction of IIGROUP/AHIQ@ec704d28, on timm's networks",
        "preprocess": data["preprocess"].replace("(x-imagenet)/std", "(x-.5)/.5"),
        "notes": [],
    }
    Path(__file__).with_name("ahiq-authors-224.json").write_text(json.dumps(data) + "\n")


def pair(case: dict[str, Any]) -> list[Tensor]:
    """The degraded and the clean image (1, 3, 224, 224)."""
    shape = [case["picture"][key] for key in ("seed", "height", "width")]
    return [torch.from_numpy(draw(*shape))[None] for draw in (golden.degraded, golden.picture)]


def program(data: dict[str, Any]) -> Any:
    """The authors' test program for one crop, with a golden file's parameters."""
    cnn, vit = timm.create_model("resnet50").eval(), timm.create_model("vit_base_patch8_224").eval()
    cnn.load_state_dict(cnn.state_dict() | filled(data["backbone"]["resnet50"]["keys"], data))
    vit.load_state_dict(vit.state_dict() | filled(data["backbone"]["vit"]["keys"], data))
    deform, regressor = deform_fusion(argparse.Namespace(patch_size=8)).eval(), Pixel_Prediction().eval()
    state = filled(data["checkpoint"], data)
    for name, network in (("deform_net", deform), ("regressor", regressor)):
        found = {key.partition(".")[2]: value for key, value in state.items() if key.startswith(name)}
        network.load_state_dict(found)

    def score(image: Tensor, reference: Tensor, norm: Any) -> Tensor:
        mean, std = (torch.tensor(values)[:, None, None] for values in norm)
        x, y = ((each - mean) / std for each in (image, reference))
        tokens = [torch.cat([t[:, 1:] for t in outputs(vit, vit.blocks[:5], each)], 2) for each in (x, y)]
        tokens = [each.transpose(1, 2).view(1, -1, 28, 28) for each in tokens]
        maps = [deform(torch.cat(outputs(cnn, cnn.layer1, each), 1), tokens[1]) for each in (x, y)]
        return regressor(*tokens, *maps).sum()

    return score


def outputs(network: nn.Module, layers: nn.Module, x: Tensor) -> list[Tensor]:
    """What each of the layers gives while the network runs."""
    found: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _, __, out: found.append(out)) for layer in layers]
    network(x)
    for hook in hooks:
        hook.remove()
    return found


if __name__ == "__main__":
    main()
