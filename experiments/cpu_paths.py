"""What each CPU-only path saves: `python -m experiments.cpu_paths` (five minutes on one core, on Linux).

The library computes a few things differently on a CPU than on other devices. For each of these paths, a training step
(forward, and backward to the image) is timed with the path and with what other devices run, in turn; for those that
go through maps in blocks, which is meant to save memory, the memory that a step adds is measured too.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.steps import ROOT, Mode, Step, environment, heading, images
from mdiqa_metric import DimensionDistance, Loss, Metric
from mdiqa_metric.backbones.base import Backbone
from mdiqa_metric.ops import convolution, feature_distance
from tests.rows import build, content, row_of

SIZE, ROUNDS, WHOLE = 256, 7, 1 << 60
IN_BLOCKS = "distances in blocks"
MEMORY = (("lpips-alex", IN_BLOCKS, 1024), ("dists", IN_BLOCKS, 1024))
METRICS = ("lpips-alex", "lpips-vgg", "dists", "stlpips-alex", "topiq-fr", "mdiqa-lite")


def plain_normalize(backbone: Any, image: torch.Tensor) -> torch.Tensor:
    """What `Backbone.normalize` does on other devices."""
    return (image - backbone.mean) / backbone.std


def plain_where(positive: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """What `_where` does on other devices."""
    return torch.where(positive, gradient, 0)


# The path in words: the object that has it, its name, and what stands in for it.
PATHS: dict[str, tuple[Any, str, Any]] = {
    "channels_last maps": (Backbone, "normalize", plain_normalize),
    "image gradient in blocks": (convolution, "_adjoint_in_blocks", convolution._adjoint),
    "ReLU gradient by integers": (convolution, "_where", plain_where),
    IN_BLOCKS: (feature_distance, "BLOCK", WHOLE),
}


def main() -> None:
    """Times every metric with and without each path, and writes the table."""
    torch.set_num_threads(1)
    facts = environment(torch.device("cpu"))
    lines = heading("What the CPU-only paths save", facts, "The same metric and weights on both sides.")
    lines += [
        f"Processor time of a training step at {SIZE} x {SIZE} without the path, divided by that with it: medians of "
        f"{ROUNDS} rounds in turn.",
        "",
        f"| metric | {' | '.join(PATHS)} |",
        "|---" * (len(PATHS) + 1) + "|",
    ]
    for name in METRICS:
        ratios = measure(load(name))
        lines.append(f"| `{name}` | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
        print(lines[-1], flush=True)
    lines += [
        "",
        "Peak resident memory that a step adds, each in a process of its own.",
        "",
        "| metric | size | path | with it | without |",
        "|---|---|---|---|---|",
    ]
    for name, path, size in MEMORY:
        ours, plain = (peak_alone(name, chosen, size) for chosen in ("", path))
        lines.append(f"| `{name}` | {size} x {size} | {path} | {ours} MiB | {plain} MiB |")
        print(lines[-1], flush=True)
    (ROOT / "experiments" / "results" / "cpu_paths.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def load(name: str) -> Metric:
    """The metric with stand-in weights where it has none here; MDIQA and MDIQA-lite as distances."""
    metric = build(name, content(row_of(name).goldens[0]))
    return DimensionDistance(metric) if name.startswith("mdiqa") else metric  # type: ignore[arg-type]


def measure(metric: Metric) -> list[float]:
    """The ratio of each path, in the order of `PATHS`."""
    step = Step(Loss(metric), *images(1, SIZE, torch.device("cpu")), Mode("fp32"))
    times: dict[str, list[float]] = {name: [] for name in ("", *PATHS)}
    for turn in range(ROUNDS + 1):
        for name, taken in times.items():
            with without(name):
                before = time.process_time()
                step()
                if turn:  # the first round warms up
                    taken.append(time.process_time() - before)
    ours, *plain = (statistics.median(taken) for taken in times.values())
    return [each / ours for each in plain]


def peak_alone(name: str, path: str, size: int) -> int:
    """`peak` in a fresh process, which has no other peak behind it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak, (name, path, size))


def peak(name: str, path: str, size: int) -> int:
    """MiB of resident memory that a step without that path adds."""
    torch.set_num_threads(1)
    metric = load(name)
    Step(Loss(metric), *images(1, 64, torch.device("cpu")), Mode("fp32"))()  # what the first step alone allocates
    step = Step(Loss(metric), *images(1, size, torch.device("cpu")), Mode("fp32"))
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident size starts anew
    before = resident("VmRSS")
    with without(path):
        step()
    return (resident("VmHWM") - before) // 1024


def resident(field: str) -> int:
    """A resident size of this process in KiB: "VmRSS" now, "VmHWM" the highest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


@contextlib.contextmanager
def without(name: str) -> Iterator[None]:
    """Runs what other devices run instead of the path of that name; nothing changes if it is empty."""
    if not name:
        yield
        return
    owner, attribute, plain = PATHS[name]
    with mock.patch.object(owner, attribute, plain):
        yield


if __name__ == "__main__":
    main()
