"""One step of a loss, the modes it runs in, and the facts about the machine that a result states."""

from __future__ import annotations

import copy
import functools
import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mdiqa_metric

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# The heading of comparisons with peers from PyPI.
SAME_WEIGHTS = (
    "Both sides have the same random backbone weights and published heads, and are checked to compute one function."
)
PACKAGES = ("lpips", "DISTS-pytorch", "piq", "piqa", "torchmetrics", "pyiqa", "stlpips-pytorch")


def images(batch: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """An image and its reference: smooth random color fields, and the same with texture and noise."""
    generator = torch.Generator().manual_seed(1)
    fields = torch.rand(batch, 3, size // 16, size // 16, generator=generator)
    reference = nn.functional.interpolate(fields, (size, size), mode="bicubic").mul(0.6).add(0.2)
    reference = (reference + 0.05 * torch.randn(reference.shape, generator=generator)).clamp(0, 1)
    image = (reference + 0.05 * torch.randn(reference.shape, generator=generator)).clamp(0, 1)
    return image.to(device), reference.to(device)


@dataclass(frozen=True)
class Mode:
    """How a step runs: under bf16 autocast, in channels_last memory, compiled."""

    name: str
    bf16: bool = False
    channels_last: bool = False
    compiled: bool = False


MODES = {
    "cpu": (Mode("fp32"), Mode("bf16", bf16=True)),
    "cuda": (
        Mode("fp32"),
        Mode("bf16", bf16=True),
        Mode("bf16 channels_last", bf16=True, channels_last=True),
        Mode("bf16 channels_last compile", bf16=True, channels_last=True, compiled=True),
    ),
}


class Step:
    """Forward and backward to the image of one loss: its cost in a training step."""

    def __init__(self, loss: nn.Module, image: Tensor, reference: Tensor, mode: Mode) -> None:
        self.mode, self.device = mode, image.device
        layout = torch.channels_last if mode.channels_last else torch.contiguous_format
        self.image = image.detach().clone(memory_format=layout).requires_grad_()
        self.reference: Any = reference.contiguous(memory_format=layout)
        loss = loss.to(self.device)
        if mode.channels_last:  # otherwise the module's own weight layout is kept
            loss = copy.deepcopy(loss).to(memory_format=layout)  # `.to` works in place, and other modes share it
        self.metric = getattr(loss, "metric", None)
        self.loss = torch.compile(loss) if mode.compiled else loss

    def encode(self) -> Step:
        """Encodes the reference of our side beforehand, as a training set with fixed references can."""
        with torch.no_grad(), self._autocast():
            self.reference = self.metric.encode(self.reference)
        return self

    def __call__(self) -> Tensor:
        self.image.grad = None
        with self._autocast():
            value = self.loss(self.image, self.reference)
        value.backward()
        return value.detach()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mode.bf16)


def environment(device: torch.device) -> dict[str, Any]:
    """What a reader needs to assess or repeat a result."""
    git = functools.partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, check=True)
    changed = git(
        ["git", "status", "--porcelain", "--", ":!benchmarks/results", ":!experiments/results"]
    ).stdout.strip()
    versions = {name: _version(name) for name in ("torch", "torchvision", "timm", "open_clip_torch", *PACKAGES)}
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": git(["git", "rev-parse", "HEAD"]).stdout.strip(),
        "dirty": bool(changed),
        "mdiqa_metric": mdiqa_metric.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {_processor()}",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": versions,
        "load before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def heading(title: str, facts: dict[str, Any], sides: str) -> list[str]:
    """The first lines of a results file; `sides` says what is the same on both, and how that was checked."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    return [
        f"# {title}",
        "",
        f"{facts['date']}, mdiqa_metric {facts['mdiqa_metric']} at commit {facts['commit'][:12]}"
        f"{' with changes not committed' if facts['dirty'] else ''}.",
        f"{facts['device']}, {facts['threads']} threads, load average {facts['load before']:.1f} before the run; "
        f"Python {facts['python']}, {versions}.",
        sides,
        "",
    ]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({torch.backends.cpu.get_cpu_capability()})"
    return platform.processor() or platform.machine()
