"""Our metrics and those of the PyPI peers as losses of the same function, for speed.py and memory.py.

No pretrained backbone is downloaded. Both sides get the same random backbone weights through the loaders that they call
anyway (`stand_in_weights`), and the published heads (LPIPS's linear layers, DISTS's alpha and beta, all of ST-LPIPS)
from the peers' wheels. Time and memory of a convolution do not depend on its weights; agreement is checked with them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import shutil
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mdiqa_metric
from mdiqa_metric import Loss
from mdiqa_metric.registry import canonical, manifest, metric_class

BACKBONE_FILES = {
    "alexnet": "alexnet-owt-7be5be79.pth",
    "vgg16": "vgg16-397923af.pth",
    "squeezenet1_1": "squeezenet1_1-b8a52dc0.pth",
}


# Weights of both sides ------------------------------------------------------------------------------------------------


@functools.cache
def backbone(name: str) -> dict[str, Tensor]:
    """A torchvision state dict with random features, scaled as by He so that all layers are active; zero classifier."""
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
    """A temporary cache for peers that cache their weights, so that stand-ins never reach the user's cache."""
    return tempfile.TemporaryDirectory()


@contextlib.contextmanager
def stand_in_weights() -> Iterator[None]:
    """Answers the downloads of peers with `backbone` and the heads from their wheels; fails for any other file."""
    import torchvision.models._api as torchvision_api

    def state_of(url: str, *_: Any, **__: Any) -> Any:
        filename = url.rpartition("/")[2]
        for name, published in BACKBONE_FILES.items():
            if filename == published:
                return backbone(name)
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
        # torchvision warns about `pretrained=True`, which peers still pass, and pyiqa prints its downloads
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for (module, name, _), original in zip(places, before, strict=True):
            setattr(module, name, original)
        torch.hub.set_dir(directory)


def _head_file(url: str) -> Path:
    """The file inside a wheel that corresponds to the URL."""
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


# The peers -----------------------------------------------------------------------------------------------------------


class Peer(nn.Module):
    """A peer as the loss that `mdiqa_metric.Loss` makes of ours: the distance of the mean score to the best score.

    Frozen and in eval mode, the cheapest way to use it, which is not every peer's default.
    """

    def __init__(self, call: Callable[[Tensor, Tensor], Tensor], metric: type[mdiqa_metric.Metric]) -> None:
        super().__init__()
        self.call = call  # registered as a submodule where it is one
        self.lower_is_better, self.score_range = metric.lower_is_better, metric.score_range
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        score = self.call(image, reference).mean()
        return score - self.score_range[0] if self.lower_is_better else self.score_range[1] - score


class _Calls(nn.Module):
    """A network called as the benchmark needs it: inputs in [0, 1], gradients to the image."""

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
    """Its network, built once: the functional form rebuilds it at every call, and the class also keeps a state."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return _Calls(LearnedPerceptualImagePatchSimilarity(net_type=net).net, normalize=True)


def _torchmetrics_dists() -> nn.Module:
    """Its network, built once: both the functional form and the class rebuild it at every call."""
    from torchmetrics.functional.image.dists import DISTSNetwork

    return _Calls(DISTSNetwork(), require_grad=True)


def _pyiqa(name: str, **options: Any) -> nn.Module:
    import pyiqa

    return pyiqa.create_metric(name, as_loss=True, device="cpu", **options)


@dataclass(frozen=True)
class Rival:
    """A peer's version of one of our metrics.

    Attributes:
        build: builds it; called under `stand_in_weights`.
        tolerance: how far its loss may lie from ours, relatively, before the two count as different functions.
        cosine: the least cosine between its gradient and ours.
        sizes: the image sizes at which it computes the same function, None for all.
        slow: whether it takes more than ten times our time on a CPU; its batches of 8 are skipped there.
        note: where the two differ by design, in words.
    """

    build: Callable[[], Callable[..., Any]]
    tolerance: float = 1e-4
    cosine: float = 0.999
    sizes: tuple[int, ...] | None = None
    slow: bool = False
    note: str = ""

    def disagreement(self, ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> str:
        """Why two pairs of loss and image gradient are not of the same function; "" if they are."""
        (value, gradient), (other, other_gradient) = ours, theirs
        relative = abs(other.item() / value.item() - 1)
        cosine = torch.cosine_similarity(gradient.flatten().double(), other_gradient.flatten().double(), 0).item()
        if relative <= self.tolerance and cosine >= self.cosine:
            return ""
        return f"its loss is {relative:.1e} from ours ({self.tolerance:g} allowed), the gradients' cosine {cosine:.4f}"


@dataclass(frozen=True)
class Comparison:
    """One of our metrics and the peers that compute the same function; the first peer leads the tables."""

    name: str
    rivals: dict[str, Rival]
    backbone: str | None = None  # the torchvision network whose random weights both sides get
    encodes: bool = False  # whether `encode` saves a backbone pass over the reference
    heavy: bool = False  # tens of GFLOP at 256 px
    options: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def label(self) -> str:
        """The name and the options, as written in `create`."""
        return ", ".join([self.name, *(f"{key}={value!r}" for key, value in self.options.items())])

    def peers_at(self, size: int, batch: int, device: torch.device) -> list[str]:
        """The peers that run a case; none if the case is skipped.

        On CUDA all that compute the same function there. A CPU skips the longest: heavy networks do not run 512 px in
        batches of 8, four times the work for the same ratio, and their further peers run only the smallest case.
        """
        names = [name for name, rival in self.rivals.items() if rival.sizes is None or size in rival.sizes]
        if device.type == "cuda":
            return names
        longest = (size, batch) == (512, 8)
        if self.heavy and longest:
            return []
        if (longest and self.encodes) or (self.heavy and (size, batch) != (256, 1)):
            names = names[:1]
        return [name for name in names if batch == 1 or not self.rivals[name].slow]

    def ours(self) -> Loss:
        """Our side."""
        weights: Any = {"backbone": backbone(self.backbone)} if self.backbone else "pretrained"
        return Loss(mdiqa_metric.create(self.name, weights=weights, **self.options))

    def peer(self, name: str) -> Peer:
        """A peer's side; ModuleNotFoundError where it is not installed."""
        with stand_in_weights():
            return Peer(self.rivals[name].build(), metric_class(manifest()["metrics"][canonical(self.name)]["class"]))


_ROUNDS = "rounds luma or colors to 1/255 first and works in float64"
_REFLECTS = "pads by reflection, so its border differs"


def _lpips_comparison(net: str, network: str, **more: Rival) -> Comparison:
    rivals = {
        "lpips": Rival(lambda: _lpips(net)),
        "piqa": Rival(lambda: _piqa("LPIPS", network=net)),
        "torchmetrics": Rival(lambda: _torchmetrics_lpips(net)),
        "pyiqa": Rival(lambda: _pyiqa("lpips", net=net)),
    }
    return Comparison(f"lpips-{net}", rivals | more, backbone=network, encodes=True, heavy=net == "vgg")


COMPARISONS = (
    Comparison(
        "psnr",
        {
            "piq": Rival(lambda: _piq("psnr")),
            "piqa": Rival(lambda: _piqa("PSNR")),
            "torchmetrics": Rival(lambda: _torchmetrics("peak_signal_noise_ratio", data_range=1.0, dim=(1, 2, 3))),
            "pyiqa": Rival(lambda: _pyiqa("psnr")),
        },
        note="RGB, an image at a time",
    ),
    Comparison(
        "ssim-rgb",
        {
            "piq": Rival(lambda: _piq("ssim", downsample=False)),
            "piqa": Rival(lambda: _piqa("SSIM")),
            "torchmetrics": Rival(
                lambda: _torchmetrics("structural_similarity_index_measure", data_range=1.0), 2e-2, 0.9, note=_REFLECTS
            ),
            "pyiqa": Rival(lambda: _pyiqa("ssimc"), 2e-3, 0.99, slow=True, note=_ROUNDS),
        },
        note="RGB, no downsampling",
    ),
    Comparison(
        "ssim-rgb",
        {
            "piq": Rival(lambda: _piq("ssim")),
            "pyiqa": Rival(lambda: _pyiqa("ssimc", downsample=True), 2e-3, 0.99, slow=True, note=_ROUNDS),
        },
        options={"downsample": True},
        note="RGB, averaged down by round(side / 256) first: piq's default",
    ),
    Comparison(
        "ssim-y-full",
        {"pyiqa": Rival(lambda: _pyiqa("ssim"), 5e-3, 0.99, slow=True, note=_ROUNDS)},
        note="BT.601 luma, no downsampling: of the peers, pyiqa alone scores luma",
    ),
    Comparison(
        "ms-ssim-rgb",
        {
            "piq": Rival(lambda: _piq("multi_scale_ssim")),
            "piqa": Rival(lambda: _piqa("MS_SSIM")),
            "torchmetrics": Rival(
                lambda: _torchmetrics("multiscale_structural_similarity_index_measure", data_range=1.0),
                2e-2,
                0.9,
                note=_REFLECTS,
            ),
            "pyiqa": Rival(lambda: _pyiqa("ms_ssim", test_y_channel=False), 5e-3, 0.99, slow=True, note=_ROUNDS),
        },
        note="RGB; sizes that halve evenly, where all agree",
    ),
    Comparison(
        "ms-ssim-y-full",
        {"pyiqa": Rival(lambda: _pyiqa("ms_ssim"), 5e-3, 0.99, slow=True, note=_ROUNDS)},
        note="BT.601 luma",
    ),
    _lpips_comparison("alex", "alexnet"),
    _lpips_comparison("squeeze", "squeezenet1_1"),
    _lpips_comparison("vgg", "vgg16", piq=Rival(lambda: _piq_network("LPIPS"))),
    Comparison(
        "stlpips-alex",
        {
            "stlpips-pytorch": Rival(lambda: _stlpips("alex")),
            "pyiqa": Rival(lambda: _pyiqa("stlpips")),
        },
        encodes=True,
        heavy=True,
        note="its real weights",
    ),
    Comparison(
        "dists",
        {
            "DISTS-pytorch": Rival(_dists),
            "piq": Rival(lambda: _piq_network("DISTS"), sizes=(256,), note="resizes larger images to 256"),
            "torchmetrics": Rival(_torchmetrics_dists),
            "pyiqa": Rival(lambda: _pyiqa("dists")),
        },
        backbone="vgg16",
        encodes=True,
        heavy=True,
        note="no resize; DISTS-pytorch with require_grad=True, without which most of its gradient is lost",
    ),
)
