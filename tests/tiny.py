"""A metric with real weights that is small enough to make up: two parts, in safetensors, or in a "published" layout."""

from __future__ import annotations

import io
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

from mdiqa_metric import WeightsError, create
from mdiqa_metric.metric import Metric
from mdiqa_metric.registry import manifest

WIDTH = 128


class Tiny(Metric):
    """A linear score of the mean color, from a backbone and heads."""

    full_reference = False
    lower_is_better = False
    score_range = (-float("inf"), float("inf"))

    def __init__(self, gain: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.gain, self.bias = gain, bias
        self.backbone = nn.Sequential(nn.Linear(3, WIDTH), nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))
        self.heads = nn.Linear(WIDTH, 1)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """The published heads are called `lin`, checkpoints lie under "params", and MATLAB has no vectors."""
        if part == "backbone":
            return state
        state = state.get("params", state)
        state = {str(key).replace("lin.", "" if part == "heads" else "heads."): state[key] for key in state}
        return state | {key: state[key].reshape(-1) for key in state if key.endswith("bias")}

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        return self.heads(self.backbone(image.mean((2, 3))))[:, 0] * self.gain + self.bias


def state(part: str = "") -> dict[str, Tensor]:
    """The one right state dict of the metric, or of a part of it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        module = Tiny()
    return {key: value.clone() for key, value in (module.get_submodule(part) if part else module).state_dict().items()}


def safetensors(part: str = "") -> bytes:
    """The bytes of its file."""
    from safetensors.torch import save

    return save(state(part))


def pth(content: Any) -> bytes:
    """What torch.save writes of it."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def install(rows: dict[str, dict[str, Any]], name: str = "tiny") -> None:
    """Makes `create(name)` take its parts from those file rows, in this process."""
    sys.modules["mdiqa_metric.metrics.tiny"] = sys.modules[__name__]
    for part, row in rows.items():
        manifest().setdefault("files", {})[f"{name}-{part}"] = row
    manifest()["metrics"][name] = {"class": "tiny.Tiny", "weights": {part: f"{name}-{part}" for part in rows}}


def attempt(name: str = "tiny", **options: Any) -> str:
    """Creates the metric: "right" when it holds the right weights, "wrong" when others, or the error's text."""
    start = time.monotonic()
    try:
        metric = create(name, **options)
    except WeightsError as error:
        print(f"{name}: {type(error).__name__} after {time.monotonic() - start:.1f} s", file=sys.stderr)
        return str(error)
    right = state()
    return "right" if all(torch.equal(value, right[key]) for key, value in metric.state_dict().items()) else "wrong"
