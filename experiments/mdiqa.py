"""Time and peak memory of MDIQA compared with a plain implementation, `plain_mdiqa.py`: `python experiments/mdiqa.py`.

Both load the same stand-in parameters in the published layout, and must give the same score and gradient before they
are timed. In one process every contender of a case runs once per round, every second round in reverse order; a ratio is
taken within a round, and the tables give medians with quartiles. Peak memory is measured as memory.py explains, each
contender in a process of its own. The other forms (mean, distance, fewer dimensions, checkpointing) are compared with
our own overall score.
"""

from __future__ import annotations

import argparse
import copy
import functools
import gc
import json
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mdiqa_metric
from mdiqa_metric import MDIQA, DimensionDistance, DimensionMean

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))
from memory import GLIBC, MIB, allocated, highest, lower_the_mark
from steps import MODES, ROOT, Mode, environment, heading, images

sys.path.insert(0, str(ROOT))

SIZES = {"cpu": ((256, 1), (256, 4), (256, 8), (512, 1), (512, 4), (1024, 1)), "cuda": None}
ALL = tuple((size, batch) for size in (256, 512, 1024) for batch in (1, 4, 8))
CHECKED = (
    "Both sides have the stand-in parameters of tests/golden/mdiqa.json and are checked to give its scores and the "
    "same gradient."
)
TWO = dict.fromkeys(mdiqa_metric.MDIQA.dimension_names, 0.0) | {"sharpness": 1.0, "noisiness": 1.0}


@functools.cache
def parameters() -> dict[str, dict[str, Tensor]]:
    """The golden file's stand-ins, in the published layout."""
    from tests.rows import PARTS, content, filled

    data = content("mdiqa")
    return {PARTS[part]: filled(keys, data, f"{part}.") for part, keys in data["checkpoint"].items()}


def plain() -> nn.Module:
    from plain_mdiqa import PlainMDIQA

    return PlainMDIQA(parameters())


def ours(**options: Any) -> MDIQA:
    return mdiqa_metric.create("mdiqa", weights=parameters(), **options)


def contender(name: str, model: MDIQA | None = None) -> nn.Module:
    """The module of that name; forms share `model` if it is given."""
    if name == "plain":
        return plain()
    if name == "ours, checkpointing":
        return ours(checkpointing=True)
    model = model or ours()
    if name.startswith("mean"):
        return DimensionMean(model)
    return DimensionDistance(model) if name.startswith("distance") else model


class Step:
    """One run: the score of images, with or without its gradient to the image."""

    def __init__(
        self, name: str, module: nn.Module, size: int, batch: int, mode: Mode, backward: bool, device: torch.device
    ) -> None:
        image, self.reference = images(batch, size, device)
        if mode.channels_last:  # our backbones already keep their weights in this layout
            image = image.contiguous(memory_format=torch.channels_last)
            module = module if name != "plain" else copy.deepcopy(module).to(memory_format=torch.channels_last)
        if mode.compiled:
            torch._dynamo.reset()  # otherwise a second size would be compiled as dynamic
        self.image = image.requires_grad_(backward)
        self.name, self.module, self.mode, self.backward = name, module, mode, backward
        self.call = torch.compile(module) if mode.compiled else module
        self.inputs: tuple[Any, ...] = (self.image, self.reference) if name.startswith("distance") else (self.image,)

    def encode(self) -> None:
        """Encodes the reference beforehand, for contenders whose name says so."""
        if "encoded" in self.name:
            self.inputs = (self.image, self.module.encode(self.reference))

    def __call__(self) -> Tensor:
        self.image.grad = None
        model = getattr(self.module, "model", self.module)
        if isinstance(model, MDIQA):
            model.set_weights(**(TWO if "of two" in self.name else dict.fromkeys(TWO, 1.0)))
        kind = self.image.device.type
        with torch.set_grad_enabled(self.backward), torch.autocast(kind, torch.bfloat16, enabled=self.mode.bf16):
            scores = self.call(*self.inputs)
        if self.backward:
            scores.sum().backward()
        return scores.detach()


def race(runs: dict[str, Step], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each contender by round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run.encode()
    for index in range(rounds + 1):  # the first warms up
        for name in runs if index % 2 else reversed(runs):
            _wait(device)
            started = time.perf_counter()
            runs[name]()
            _wait(device)
            seconds[name].append(time.perf_counter() - started)
    return {name: values[1:] for name, values in seconds.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def ratio(over: list[float], under: list[float]) -> dict[str, float]:
    """Quartiles of one contender's time over another's, a round at a time."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(over, under, strict=True)], n=4, method="inclusive")
    return {"low": low, "median": middle, "high": high}


def agree(one: nn.Module, other: nn.Module, device: torch.device) -> None:
    """Asserts that both give the golden file's scores and the same gradient."""
    from tests.golden import golden
    from tests.rows import content

    cases = [case for case in content("mdiqa")["cases"] if not case["options"]]
    for case in cases:
        photo = golden.photo(*(case["image"][key] for key in ("seed", "height", "width")))
        image = torch.from_numpy(photo)[None].to(device).requires_grad_()
        found = []
        for module in (one, other):
            score = module(image)
            torch.testing.assert_close(score.item(), case["score"], rtol=0, atol=1e-4 * abs(case["score"]))
            found.append(torch.autograd.grad(score.sum(), image)[0])
        assert (found[0] - found[1]).norm() < 5e-3 * found[0].norm(), "the gradients differ"


def times(cases: tuple[tuple[int, int], ...], rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """Ours compared with the plain one, and our other forms with ours, over all cases and modes."""
    model = ours().to(device)
    modules: dict[str, nn.Module] = {"plain": plain().to(device), "ours": model}
    agree(*modules.values(), device)
    forms = ("ours", "mean", "mean of two", "distance", "distance, encoded", "ours, checkpointing")
    modules |= {name: contender(name, model).to(device) for name in forms[1:]}
    rows = []
    for size, batch in cases:
        for mode in MODES[device.type]:
            for backward in (False, True):
                names = ["plain", "ours"]
                if backward and mode is MODES[device.type][0] and (size, batch) in (cases[0], (512, 1)):
                    names += forms[1:]
                runs = {name: Step(name, modules[name], size, batch, mode, backward, device) for name in names}
                seconds = race(runs, max(3, rounds // batch if size == 256 else rounds // 3), device)
                row: dict[str, Any] = {"size": size, "batch": batch, "mode": mode.name, "backward": backward}
                row["plain"] = ratio(seconds["plain"], seconds["ours"])
                row["forms"] = {name: ratio(seconds["ours"], seconds[name]) for name in names[2:]}
                if "mean of two" in seconds:
                    row["nine over two"] = ratio(seconds["mean"], seconds["mean of two"])
                if mode.bf16:
                    exact = Step("ours", model, size, batch, MODES[device.type][0], False, device)()
                    row["deviation"] = (runs["ours"]() - exact).abs().max().item()
                    row["score"] = exact.abs().max().item()
                rows.append(row)
                print(_line(row), flush=True)
    return rows


def peaks(cases: tuple[tuple[int, int], ...], device: torch.device, threads: int) -> list[dict[str, Any]]:
    """Peak memory of forward and backward, each contender in a process of its own."""
    os.environ.update(GLIBC)  # read by the fork server, which starts as a new program
    processes = multiprocessing.get_context("forkserver")
    rows = []
    for mode in MODES[device.type][:2]:
        found = {}
        for name in ("ours", "plain", "ours, checkpointing", "mean", "mean of two", "distance", "distance, encoded"):
            if mode.bf16 and name not in ("ours", "plain"):
                continue
            with processes.Pool(1) as pool:
                found[name] = pool.apply(peaks_of, (name, mode, cases, device, threads))
        for case in cases:
            row = {"size": case[0], "batch": case[1], "mode": mode.name}
            rows.append(row | {"MiB": {name: peak[case] / MIB for name, peak in found.items()}})
            print(rows[-1], flush=True)
    return rows


def peaks_of(
    name: str, mode: Mode, cases: tuple[tuple[int, int], ...], device: torch.device, threads: int
) -> dict[tuple[int, int], int]:
    """In the child: bytes above the loaded network and the images by case."""
    torch.set_num_threads(threads)
    module = contender(name).to(device)
    parameters.cache_clear()
    found = {}
    for size, batch in ((64, 1), *cases):  # the first is a warm-up: it creates what is created at run time
        run = Step(name, module, size, batch, mode, True, device)
        gc.collect()
        base = allocated(device)
        run.encode()  # after the base line is read: its features count as part of the step
        lower_the_mark(device)
        run()
        found[size, batch] = highest(device) - base
    return found


def _line(row: dict[str, Any]) -> str:
    what = "forward + backward" if row["backward"] else "forward"
    forms = "".join(f", {name} {found['median']:.2f}" for name, found in row["forms"].items())
    deviation = f", bf16 off by {row['deviation']:.1e} of {row['score']:.2f}" if "deviation" in row else ""
    return (
        f"{row['size']} px x {row['batch']} {row['mode']} {what}: plain {row['plain']['median']:.2f}{forms}{deviation}"
    )


def report(facts: dict[str, Any], rows: list[dict[str, Any]], memory: list[dict[str, Any]]) -> str:
    """The tables of a result, in Markdown."""
    lines = heading("MDIQA and a plain implementation", facts, CHECKED)
    lines += [
        "Above 1, ours is faster or needs less memory. An encoded reference's features count as part of its memory.",
        "",
        "## Time: plain over ours",
        "",
        "| px | batch | mode | forward | forward + backward | bf16 moves the score by |",
        "|---|---|---|---|---|---|",
    ]
    for forward, both in zip(rows[::2], rows[1::2], strict=True):
        moved = f"{forward['deviation']:.1e} of {forward['score']:.2f}" if "deviation" in forward else ""
        cells = [
            str(both["size"]),
            str(both["batch"]),
            both["mode"],
            _cell(forward["plain"]),
            _cell(both["plain"]),
            moved,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Time: our overall score over our other forms, forward + backward", ""]
    with_forms = [row for row in rows if row["forms"]]
    names = [*with_forms[0]["forms"]]
    lines += [f"| px | batch | {' | '.join(names)} | mean: nine dimensions over two |", "|---" * (len(names) + 3) + "|"]
    for row in with_forms:
        cells = [_cell(found) for found in (*row["forms"].values(), row["nine over two"])]
        lines.append(f"| {row['size']} | {row['batch']} | {' | '.join(cells)} |")
    lines += ["", "## Peak memory of forward + backward, above the loaded network", ""]
    names = [*memory[0]["MiB"]]
    lines += [
        f"| px | batch | mode | plain over ours | {', MiB | '.join(names)}, MiB |",
        "|---" * (len(names) + 4) + "|",
    ]
    for row in memory:
        found = row["MiB"]
        cells = [f"{found[name]:.0f}" if name in found else "" for name in names]
        share = f"{found['plain'] / found['ours']:.2f}"
        lines.append(f"| {row['size']} | {row['batch']} | {row['mode']} | {share} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="256 px, batch 1, no result file: does everything run?")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    facts = environment(device)
    cases = ((256, 1),) if options.quick else SIZES[device.type] or ALL
    memory = peaks(cases, device, options.threads)
    rows = times(cases, options.rounds, device)
    if not options.quick:
        stem = options.out / f"mdiqa-{device.type}"
        stem.with_suffix(".json").write_text(
            json.dumps({"environment": facts, "times": rows, "memory": memory}, indent=1) + "\n"
        )
        stem.with_suffix(".md").write_text(report(facts, rows, memory))


if __name__ == "__main__":
    main()
