"""Makes the golden files of two TOPIQ variants that ../shared/golden has none of: FLIVE's resize, the aesthetic head.

A second implementation, out of PyTorch's and torchvision's own functions and straight from the published layout: live
batch normalization, affine layer normalization, `multi_head_attention_forward`. It must first score what topiq-nr.json
holds, which the authors' program made; then it makes the others: `python -m tests.golden.make_topiq`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import resnet50
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms.functional import normalize, resize

from tests.golden import golden
from tests.rows import content, filled

NODES = ("relu", "layer1", "layer2", "layer3", "layer4")
State = dict[str, Tensor]


def values(state: State, image: Tensor, parts: int) -> Tensor:
    """What the last linear layer gives for an image (1, 3, H, W) in [0, 1]."""
    backbone = resnet50(weights=None)
    prefix = "semantic_model."
    weights = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    backbone.load_state_dict(weights | {f"fc.{k}": v for k, v in backbone.fc.state_dict().items()})
    backbone = create_feature_extractor(backbone.eval(), list(NODES))
    maps = backbone(normalize(image, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))).values()
    size = list(maps)[-1].shape[-2:]
    position = torch.cat([state["h_emb"].expand(-1, -1, -1, 32), state["w_emb"].expand(-1, -1, 32, -1)], 1)
    position = F.interpolate(position, size, mode="bicubic")
    tokens = []
    for level, x in enumerate(maps):
        first, second = _conv(state, f"weight_pool.{level}.splitconv", x).chunk(2, 1)
        for index, padding in ((0, 0), (2, 1), (4, 1)):
            second = _conv(state, f"weight_pool.{level}.weight_blk.{index}", second, padding)
            second = second.sigmoid() if index == 4 else F.gelu(second)
        pooled = F.adaptive_avg_pool2d(F.gelu(first) * second, size)
        reduced = F.gelu(_conv(state, f"dim_reduce.{level}.0", pooled)) + position
        tokens.append(_encoder(state, f"sa_attn_blks.{level}.layers.0", reduced.flatten(2).permute(2, 0, 1), parts))
    query = tokens[-1]
    for index, memory in enumerate(reversed(tokens[:-1])):
        block = f"attn_blks.{index}.layers.0"
        seen = _norm(state, f"{block}.norm2", memory)
        found = _attention(state, f"{block}.multihead_attn", _norm(state, f"{block}.norm1", query), seen, parts)
        query = _perceptron(state, block, "norm3", query + found)
    x = _encoder(state, "attn_pool", query, parts).mean(0)
    for norm, linear in (("0", "1"), ("3", "4")):
        x = F.gelu(_linear(state, f"score_linear.{linear}", _norm(state, f"score_linear.{norm}", x)))
    return _linear(state, "score_linear.6", x)[0]


def _conv(state: State, name: str, x: Tensor, padding: int = 0) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def _attention(state: State, name: str, query: Tensor, memory: Tensor, parts: int) -> Tensor:
    weights = [state[f"{name}.{leaf}"] for leaf in ("in_proj_weight", "in_proj_bias")]
    out = [state[f"{name}.out_proj.{leaf}"] for leaf in ("weight", "bias")]
    width = query.shape[-1]
    found, _ = F.multi_head_attention_forward(
        query, memory, memory, width, parts, *weights, None, None, False, 0.0, *out, training=False
    )
    return found


def _encoder(state: State, name: str, x: Tensor, parts: int) -> Tensor:
    normal = _norm(state, f"{name}.norm1", x)
    return _perceptron(state, name, "norm2", x + _attention(state, f"{name}.self_attn", normal, normal, parts))


def _perceptron(state: State, name: str, norm: str, x: Tensor) -> Tensor:
    up = F.gelu(_linear(state, f"{name}.linear1", _norm(state, f"{name}.{norm}", x)))
    return x + _linear(state, f"{name}.linear2", up)


def widened(keys: dict[str, list[int]]) -> dict[str, list[int]]:
    """The aesthetic file's keys and shapes: 512 channels, feed-forward layers of 2048, ten values.

    So wide it has 293.7 MB of float32, and its published file 294 MB.
    """
    wide = {}
    for key, shape in keys.items():
        if key.startswith(("semantic_model.", "weight_pool.")):
            wide[key] = shape
        elif key.startswith("dim_reduce."):
            wide[key] = [512, *shape[1:]]
        else:
            wide[key] = [2 * size if size >= 128 else size for size in shape]
    return wide | {"score_linear.6.weight": [10, 512], "score_linear.6.bias": [10]}


def write(stem: str, data: dict, score: Callable[[Tensor], Tensor], reference: str) -> None:
    """A golden file with the public images' scores, and the gradient of the first."""
    cases = []
    for index, old in enumerate(content("topiq-nr")["cases"]):
        shape = [old["picture"][key] for key in ("seed", "height", "width")]
        image = torch.from_numpy(golden.picture(*shape))[None].requires_grad_(index == 0)
        value = score(image)
        case = {"picture": old["picture"], "ref": None, "options": {}, "score": value.item()}
        if index == 0:
            flat = torch.autograd.grad(value, image)[0].flatten()
            places = [math.floor((i + 1) * flat.numel() / 17) for i in range(16)]
            case["grad"] = {
                "mean_abs": flat.abs().mean().item(),
                "l2": flat.norm().item(),
                "first": flat[:8].tolist(),
                "at": {str(place): flat[place].item() for place in places},
            }
        cases.append(case)
    data = data | {"reference": reference, "kind": "NR", "lower_better": False, "cases": cases}
    Path(__file__).with_name(f"{stem}.json").write_text(json.dumps(data, indent=1) + "\n")


def main() -> None:
    """Checks this implementation against the authors', then writes both files."""
    known = content("topiq-nr")
    parameters = {"checkpoint": known["checkpoint"], "scale": known["scale"]}
    state = filled(known["checkpoint"], known)
    for case in known["cases"]:
        image = torch.from_numpy(golden.picture(*(case["picture"][key] for key in ("seed", "height", "width"))))[None]
        with torch.no_grad():
            assert abs(values(state, image, 4).item() - case["score"]) < 1e-5, "this is not the authors' TOPIQ"
    this = "tests/golden/make_topiq.py, which scores topiq-nr.json to 1e-5"
    write(
        "topiq-nr-flive",
        parameters,
        lambda image: values(state, resize(image, 384, antialias=True), 4)[0],
        f"{this}, after torchvision's resize(384, antialias=True)",
    )
    wide = parameters | {"checkpoint": widened(known["checkpoint"])}
    state = filled(wide["checkpoint"], wide)
    ratings = torch.arange(1.0, 11)
    write(
        "topiq-iaa",
        wide,
        lambda image: values(state, image, 8).softmax(0) @ ratings,
        f"{this}, twice as wide, with the mean of a softmax over ten values",
    )


if __name__ == "__main__":
    main()
