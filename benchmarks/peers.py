"""Our metrics and the PyPI peers' as losses of the same function: what speed.py and memory.py measure.

No pretrained trunk is fetched. Both sides get one set of random trunk weights through the loaders that they call anyway
(`stand_in_weights`), and the published heads (LPIPS's linear layers, DISTS's alpha and beta, ST-LPIPS) out of the peers'
own wheels. Time and memory of a convolution do not depend on the values; agreement of the scores is checked on them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mdiqa_metric

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("lpips", "DISTS-pytorch", "piq", "piqa", "torchmetrics", "pyiqa", "stlpips-pytorch")
TRUNKS = {"alexnet": "alexnet-owt-7be5be79.pth", "vgg16": "vgg16-397923af.pth", "squeezenet1_1": "squeezenet1_1-b8a52dc0.pth"}


# What each side starts from ------------------------------------------------------------------------------------------


@functools.cache
def trunk(name: str) -> dict[str, Tensor]:
    """A torchvision state dict of random features; He's scale keeps every depth alive. The unused classifier is zero."""
    import torchvision

    with torch.device("meta"):
        shapes = getattr(torchvision.models, name)(weights=None).state_dict()
    generator = torch.Generator().manual_seed(0)
    state = {key: torch.zeros(value.shape) for key, value in shapes.items()}
    for key, value in state.items():
        if key.startswith("features.") and value.ndim == 4:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
    return state


@functools.cache
def _cache() -> tempfile.TemporaryDirectory[str]:
    """Where peers that cache put the stand-ins, so that they never lie in the user's cache; gone with the process."""
    return tempfile.TemporaryDirectory()


@contextlib.contextmanager
def stand_in_weights() -> Iterator[None]:
    """Answers the downloads that peers ask for with `trunk` and with the heads out of their wheels, or fails."""
    import torchvision.models._api as torchvision_api

    def state_of(url: str, *_: Any, **__: Any) -> Any:
        filename = url.rpartition("/")[2]
        for name, published in TRUNKS.items():
            if filename == published:
                return trunk(name)
        return torch.load(_head_file(url), map_location="cpu") if filename != "lpips_weights.pt" else _piq_heads()

    def copy_of(url: str, destination: str, *_: Any, **__: Any) -> None:
        shutil.copy(_head_file(url), destination)

    places = [
        (torch.hub, "load_state_dict_from_url", state_of),
        (torch.hub, "download_url_to_file", copy_of),
        (torchvision_api, "load_state_dict_from_url", state_of),
    ]
    before = [getattr(module, name) for module, name, _ in places]
    directory = torch.hub.get_dir()
    torch.hub.set_dir(_cache().name)
    for module, name, replacement in places:
        setattr(module, name, replacement)
    try:
        # torchvision warns of `pretrained=True`, which peers still pass, and pyiqa tells of downloads
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for (module, name, _), original in zip(places, before, strict=True):
            setattr(module, name, original)
        torch.hub.set_dir(directory)


def _head_file(url: str) -> Path:
    """The file inside a wheel that holds what the URL would give."""
    filename = url.rpartition("/")[2]
    if "shift_tolerant" in filename:
        return _package("stlpips_pytorch") / "weights" / "vST0.0" / filename
    if "dists" in filename.lower():
        return _package("DISTS_pytorch") / "weights.pt"
    for net in ("alex", "vgg", "squeeze"):
        if net in filename:
            return _package("lpips") / "weights" / "v0.1" / f"{net}.pth"
    raise RuntimeError(f"A peer asks for {url}, and there is no stand-in for it.")


def _piq_heads() -> list[Tensor]:
    heads = torch.load(_package("lpips") / "weights" / "v0.1" / "vgg.pth", map_location="cpu")
    return [heads[f"lin{index}.model.1.weight"] for index in range(len(heads))]


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{name} is not installed: see benchmarks/README.md.")
    return Path(spec.origin).parent


def pictures(batch: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """An image and its reference: smooth random colour fields, and the same with texture and noise."""
    generator = torch.Generator().manual_seed(1)
    fields = torch.rand(batch, 3, size // 16, size // 16, generator=generator)
    reference = nn.functional.interpolate(fields, (size, size), mode="bicubic").mul(0.6).add(0.2)
    reference = (reference + 0.05 * torch.randn(reference.shape, generator=generator)).clamp(0, 1)
    image = (reference + 0.05 * torch.randn(reference.shape, generator=generator)).clamp(0, 1)
    return image.to(device), reference.to(device)


# The peers -----------------------------------------------------------------------------------------------------------


class Peer(nn.Module):
    """A peer as the loss that `mdiqa_metric.Loss` makes of ours: the mean score's distance to the best.

    Frozen and in eval mode, which is the cheapest way to use it and not every peer's default.
    """

    def __init__(self, call: Callable[[Tensor, Tensor], Tensor], metric: mdiqa_metric.Metric) -> None:
        super().__init__()
        self.call = call  # registered as a submodule where it is one
        self.lower_is_better, self.score_range = metric.lower_is_better, metric.score_range
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        score = self.call(image, reference).mean()
        return score - self.score_range[0] if self.lower_is_better else self.score_range[1] - score


class _Calls(nn.Module):
    """A network called in the one way that the benchmark needs: inputs in [0, 1], gradients to the image."""

    def __init__(self, network: nn.Module, **options: Any) -> None:
        super().__init__()
        self.network, self.options = network, options

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        return self.network(image, reference, **self.options)


def _lpips(net: str) -> nn.Module:
    import lpips

    return _Calls(lpips.LPIPS(net=net, verbose=False), normalize=True)


def _dists() -> nn.Module:
    from DISTS_pytorch import DISTS

    network = DISTS(load_weights=False)  # its own loader looks in sys.prefix
    state = torch.load(_package("DISTS_pytorch") / "weights.pt", map_location="cpu")
    network.alpha.data, network.beta.data = state["alpha"], state["beta"]
    return _Calls(network, require_grad=True)


def _stlpips(net: str) -> nn.Module:
    for name, attribute in (("IPython", "embed"), ("torchsummary", "summary")):  # imported and never used
        module = types.ModuleType(name)
        setattr(module, attribute, None)
        sys.modules.setdefault(name, module)
    from stlpips_pytorch import stlpips

    return _Calls(stlpips.LPIPS(net=net, variant="shift_tolerant", verbose=False), normalize=True)


def _piq(name: str, **options: Any) -> Callable[..., Any]:
    import piq

    return functools.partial(getattr(piq, name), **options)


def _piq_network(name: str) -> nn.Module:
    import piq

    return getattr(piq, name)()


def _piqa(name: str, **options: Any) -> nn.Module:
    import piqa

    return getattr(piqa, name)(**options)


def _torchmetrics(name: str, **options: Any) -> Callable[..., Any]:
    import torchmetrics.functional.image as functional

    return functools.partial(getattr(functional, name), **options)


def _torchmetrics_lpips(net: str) -> nn.Module:
    """Its network, held: the functional form builds it anew at every call, and the class keeps a state beside it."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return _Calls(LearnedPerceptualImagePatchSimilarity(net_type=net).net, normalize=True)


def _torchmetrics_dists() -> nn.Module:
    """Its network, held: both the functional form and the class build it anew at every call."""
    from torchmetrics.functional.image.dists import DISTSNetwork

    return _Calls(DISTSNetwork(), require_grad=True)


def _pyiqa(name: str, **options: Any) -> nn.Module:
    import pyiqa

    return pyiqa.create_metric(name, as_loss=True, device="cpu", **options)


@dataclass(frozen=True)
class Rival:
    """A peer's way to one metric.

    Attributes:
        build: makes it; run under `stand_in_weights`.
        tolerance: how far its loss may lie from ours, relatively, before the two count as different functions.
        sizes: the picture sizes at which it computes the same function, None for all.
        why: what is left of a difference, for the table.
    """

    build: Callable[[], Callable[..., Any]]
    tolerance: float = 1e-3
    sizes: tuple[int, ...] | None = None
    why: str = ""


@dataclass(frozen=True)
class Comparison:
    """One of our metrics and the peers that compute the same function; the first is the one others are built on."""

    ours: Callable[[], mdiqa_metric.Metric]
    rivals: dict[str, Rival]
    note: str = ""
    heavy: bool = False  # VGG: minutes on a CPU
    trunk: bool = field(default=False)
