"""Makes arniqa-authors.json and arniqa-kadid.json: ARNIQA of an image halved as its authors do, from torchmetrics.

pyiqa, which scored arniqa-koniq.json, halves without antialiasing. Needs torchmetrics 1.9.0 (Apache-2.0).

    pip install torchmetrics==1.9.0
    python -m tests.golden.make_arniqa
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from tests.golden import golden
from tests.rows import content, filled


def main() -> None:
    """Writes both files."""
    known = content("arniqa-koniq")
    known["scale"]["regressor.weight"] = 100.0  # there the range of the opinions hides what the features change
    for stem, dataset in (("arniqa-authors", "koniq10k"), ("arniqa-kadid", "kadid10k")):
        network = torchmetrics_network(dataset, known)
        cases = [score(network, old["picture"], not index) for index, old in enumerate(known["cases"])]
        data = {
            "reference": f"torchmetrics==1.9.0 arniqa(regressor_dataset={dataset!r}, normalize=True)",
            "kind": "NR",
            "lower_better": False,
            "checkpoint": known["checkpoint"],
            "scale": known["scale"],
            "cases": cases,
        }
        Path(__file__).with_name(f"{stem}.json").write_text(json.dumps(data, indent=1) + "\n")


def torchmetrics_network(dataset: str, known: dict[str, Any]) -> torch.nn.Module:
    """torchmetrics' network with the stand-in parameters; its keys are pyiqa's."""
    from torchmetrics.functional.image.arniqa import _ARNIQA

    with patch.object(_ARNIQA, "_load_weights"):
        network = _ARNIQA(regressor_dataset=dataset).eval()
    network.load_state_dict(filled(known["checkpoint"], known))
    return network


def score(network: torch.nn.Module, picture: dict[str, int], gradient: bool) -> dict[str, Any]:
    """The case of one image; in the first also the score in float64 and the gradient."""
    image = torch.from_numpy(golden.picture(picture["seed"], picture["height"], picture["width"]))[None]
    case: dict[str, Any] = {"picture": picture, "ref": None, "options": {}}
    if not gradient:
        with torch.no_grad():
            return case | {"score": network(image, normalize=True).item()}
    value = network(image.requires_grad_(), normalize=True)
    flat = torch.autograd.grad(value.sum(), image)[0].flatten()
    places = [math.floor((i + 1) * flat.numel() / 17) for i in range(16)]
    case["score"] = value.item()
    case["grad"] = {
        "mean_abs": flat.abs().mean().item(),
        "l2": flat.norm().item(),
        "first": flat[:8].tolist(),
        "at": {str(place): flat[place].item() for place in places},
    }
    with torch.no_grad():
        case["score64"] = network.double()(image.detach().double(), normalize=True).item()
    network.float()
    return case


if __name__ == "__main__":
    main()
