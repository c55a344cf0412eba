"""Makes maniqa-damped.json and maniqa-pipal-damped.json: MANIQA of one crop, by a second implementation in float64.

It is written with PyTorch's functions straight from the published layout, and first scores what
maniqa-koniq-crops1.json holds, which pyiqa made. That file's stand-ins let attention jump from one channel to another:
a change of 1e-7 in the image moves its scores by a thousandth, as does another order of sums. The two files scale the
queries down, as `scale` says, so that scores and gradients have their digits on any machine:

    python -m tests.golden.make_maniqa
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.golden import golden
from tests.rows import content, filled

State = dict[str, Tensor]


def main() -> None:
    """Checks the implementation on pyiqa's file and writes the others."""
    data = content("maniqa-koniq-crops1")
    data["checkpoint"] = {key: shape for key, shape in data["checkpoint"].items() if key not in data["kept"]}
    state = {key: value.double() for key, value in filled(data["checkpoint"], data).items()}
    case = data["cases"][0]
    image = torch.from_numpy(golden.picture(*(case["picture"][key] for key in ("seed", "height", "width"))))[None]
    with torch.no_grad():
        assert abs(score(state, image.double(), 0.8).item() / case["score"] - 1) < 5e-3
    data["kept"], data["cases"] = [], [case]
    data["scale"] = {key: 0.02 for key in state if key.endswith("c_q.weight")}
    state = {key: value.double() for key, value in filled(data["checkpoint"], data).items()}
    image = image.double().requires_grad_()
    for stem, scale in (("maniqa-damped", 0.8), ("maniqa-pipal-damped", 0.13)):
        value = score(state, image, scale)
        flat = torch.autograd.grad(value, image)[0].flatten()
        case["score"] = value.item()
        case["grad"] = {
            "mean_abs": flat.abs().mean().item(),
            "l2": flat.norm().item(),
            "first": flat[:8].tolist(),
            "at": {index: flat[int(index)].item() for index in case["grad"]["at"]},
        }
        case.pop("rerun_rel", None)
        data |= {
            "variant": stem.removeprefix("maniqa-"),
            "reference": "PyTorch in float64, which agrees with maniqa-koniq-crops1.json as far as that has digits",
            "notes": [*data["notes"][:1], f"Swin scale {scale}", "queries of the tablocks scaled by 0.02"],
        }
        Path(__file__).with_name(f"{stem}.json").write_text(json.dumps(data) + "\n")


def score(state: State, image: Tensor, scale: float) -> Tensor:
    """The score of the top left crop of an image (1, 3, H, W) in [0, 1]."""
    x = transformer(state, (image[..., :224, :224] - 0.5) / 0.5)
    for stage in (1, 2):
        for index in range(2):
            q, k, v = (_linear(state, f"tablock{stage}.{index}.c_{name}", x) for name in "qkv")
            seen = torch.einsum("ncd,nde->nce", torch.softmax(q @ k.transpose(1, 2) / 28, 2), v)
            x = x + seen.permute(0, 2, 1).reshape(1, -1, 784)
        x = (
            torch.einsum("dc,nct->ndt", state[f"conv{stage}.weight"][:, :, 0, 0], x)
            + state[f"conv{stage}.bias"][:, None]
        )
        for layer in range(2):
            name = f"swintransformer{stage}.layers.{layer}"
            y = x.transpose(1, 2).unflatten(1, (28, 28))
            for block, shift in ((0, 0), (1, 2)):
                y = swin(state, f"{name}.blocks.{block}", y, shift)
            y = F.conv2d(y.permute(0, 3, 1, 2), state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], padding=1)
            x = x + scale * y.relu().flatten(2)
    x = x.transpose(1, 2)
    q, w = (_linear(state, f"{n}.3", _linear(state, f"{n}.0", x).relu()) for n in ("fc_score", "fc_weight"))
    return (q.relu() * w.sigmoid()).sum() / w.sigmoid().sum()


def transformer(state: State, x: Tensor) -> Tensor:
    """The tokens of blocks 6 to 9 without the class token, (1, 3072, 784)."""
    x = F.conv2d(x, state["vit.patch_embed.proj.weight"], state["vit.patch_embed.proj.bias"], stride=8)
    x = torch.cat([state["vit.cls_token"], x.flatten(2).transpose(1, 2)], 1) + state["vit.pos_embed"]
    taken = []
    for index in range(10):
        name = f"vit.blocks.{index}"
        qkv = _linear(state, f"{name}.attn.qkv", _norm(state, f"{name}.norm1", x, 1e-6))
        q, k, v = qkv.reshape(1, -1, 3, 12, 64).permute(2, 0, 3, 1, 4)
        found = torch.softmax(q @ k.transpose(2, 3) / 8, 3) @ v
        x = x + _linear(state, f"{name}.attn.proj", found.transpose(1, 2).flatten(2))
        x = x + _perceptron(state, f"{name}.mlp", _norm(state, f"{name}.norm2", x, 1e-6))
        if index >= 6:
            taken.append(x[:, 1:])
    return torch.cat(taken, 2).transpose(1, 2)


def swin(state: State, name: str, x: Tensor, shift: int) -> Tensor:
    """A Swin block of windows of 4 x 4 on (1, 28, 28, C), each window attending to itself, place by place."""
    y = _norm(state, f"{name}.norm1", x, 1e-5).roll((-shift, -shift), (1, 2))
    # After the roll, the last `shift` rows and columns come from the other side and must not see the rest.
    side = torch.tensor([0] * 24 + [1] * (4 - shift) + [2] * shift)
    region = 3 * side[:, None] + side
    table = state[f"{name}.attn.relative_position_bias_table"]
    place = torch.arange(16)
    down, right = (place // 4)[:, None] - place // 4, (place % 4)[:, None] - place % 4
    bias = table[(down + 3) * 7 + right + 3].permute(2, 0, 1)
    out = torch.zeros_like(y)
    for top in range(0, 28, 4):
        for left in range(0, 28, 4):
            window = y[:, top : top + 4, left : left + 4].flatten(1, 2)
            own = region[top : top + 4, left : left + 4].flatten()
            hidden = torch.where(own[:, None] == own, 0.0, -100.0).to(y.dtype)
            q, k, v = _linear(state, f"{name}.attn.qkv", window).reshape(16, 3, 4, -1).permute(1, 2, 0, 3)
            found = torch.softmax(q @ k.transpose(1, 2) * q.shape[-1] ** -0.5 + bias + hidden, 2) @ v
            found = _linear(state, f"{name}.attn.proj", found.transpose(0, 1).flatten(1))
            out[:, top : top + 4, left : left + 4] = found.view(1, 4, 4, -1)
    x = x + out.roll((shift, shift), (1, 2))
    return x + _perceptron(state, f"{name}.mlp", _norm(state, f"{name}.norm2", x, 1e-5))


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(state: State, name: str, x: Tensor, epsilon: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], epsilon)


def _perceptron(state: State, name: str, x: Tensor) -> Tensor:
    return _linear(state, f"{name}.fc2", F.gelu(_linear(state, f"{name}.fc1", x)))


if __name__ == "__main__":
    main()
