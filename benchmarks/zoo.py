"""Time and memory of the metrics beyond speed.py's, against PyPI peers: `python benchmarks/zoo.py`.

Of every metric that pyiqa, piq or frame-analytics has too: a score without a gradient, and a step, forward and backward
to the image, of one image. Contenders of a case run interleaved in one process, as in speed.py, and a ratio is a peer's
time over ours within a round; memory is measured as in memory.py, each contender in a process of its own. Metrics
without weights are first compared by their scores. Networks have random weights on both sides, those of our golden
files here: that they compute one function is what these files prove.
"""

from __future__ import annotations

import argparse
import gc
import math
import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memory import MIB, WARM_SIZE, allocated, highest, lower_the_mark  # first: it sets what glibc reads  # isort: skip
import torch
from peers import stand_in_weights
from speed import SAMPLE, quartiles
from steps import RESULTS, ROOT, environment, heading, images
from torch import Tensor

sys.path.insert(0, str(ROOT))  # for stand-in weights
from tests.rows import metric_of, row_of

SIZES = (256, 512)
ROUNDS = (3, 15)  # at least and at most
WORK = ("score", "step")
OURS = "ours"

Call = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A metric of ours and builders of the peers' own, by the peer's name.

    Attributes:
        tolerance: how far a peer's score may lie from ours, relatively; None for networks with random weights.
        note: where a peer differs by design, in words.
    """

    name: str
    peers: dict[str, Callable[[], Call]] = field(default_factory=dict)
    tolerance: float | None = 2e-3
    note: str = ""

    def call(self, who: str) -> Call:
        """The contender; ModuleNotFoundError where a peer is not installed."""
        if who != OURS:
            with stand_in_weights():
                return self.peers[who]()
        metric = metric_of(row_of(self.name)).requires_grad_(False)
        return metric if metric.full_reference else lambda image, reference: metric(image)


def _piq(name: str, **options: Any) -> Callable[[], Call]:
    def build() -> Call:
        import piq

        return lambda image, reference: getattr(piq, name)(image, reference, **options)

    return build


def _frame_analytics(name: str, **options: Any) -> Callable[[], Call]:
    def build() -> Call:
        import frame_analytics

        function = getattr(frame_analytics, name)
        return lambda image, reference: function(reference, image, data_range=1.0, **options)

    return build


def _of_luma(name: str) -> Callable[[], Call]:
    def build() -> Call:
        call = _frame_analytics(name)()
        return lambda image, reference: call(*(_luma(each) for each in (image, reference)))

    return build


def _luma(image: Tensor) -> Tensor:
    return torch.tensordot(image.new_tensor([[0.299, 0.587, 0.114]]), image, ([1], [1])).transpose(0, 1)


def _piq_network(name: str) -> Call:
    """With random weights: its constructor would download the trained ones."""
    import piq

    network = getattr(piq, name)(enable_grad=True).requires_grad_(False)
    return lambda image, reference: network(image, reference)


def _pyiqa(name: str, **options: Any) -> Callable[[], Call]:
    def build() -> Call:
        import pyiqa

        metric = pyiqa.create_metric(name, as_loss=True, device="cpu", **options).requires_grad_(False)
        return metric if metric.metric_mode == "FR" else lambda image, reference: metric(image)

    return build


FLOAT = {"dtype": torch.float32}
LUMA = FLOAT | {"luma": "bt601"}
_ROUNDS = "pyiqa rounds luma to 8 bits"
CASES = (
    Case(
        "gmsd",
        {"piq": _piq("gmsd"), "frame-analytics": _frame_analytics("gmsd", **LUMA), "pyiqa": _pyiqa("gmsd")},
        note=_ROUNDS,
    ),
    Case("ms-gmsd", {"piq": _piq("multi_scale_gmsd"), "frame-analytics": _frame_analytics("ms_gmsd", **LUMA)}),
    Case("mdsi", {"piq": _piq("mdsi"), "frame-analytics": _frame_analytics("mdsi", **FLOAT)}),
    Case("haarpsi", {"piq": _piq("haarpsi"), "frame-analytics": _frame_analytics("haarpsi", **LUMA)}),
    Case("fsim", {"piq": _piq("fsim"), "frame-analytics": _frame_analytics("fsimc", **FLOAT), "pyiqa": _pyiqa("fsim")}),
    Case("vsi", {"piq": _piq("vsi"), "frame-analytics": _frame_analytics("vsi", **FLOAT), "pyiqa": _pyiqa("vsi")}),
    Case("sr-sim", {"piq": _piq("srsim"), "frame-analytics": _frame_analytics("srsim", **FLOAT)}),
    Case("dss", {"piq": _piq("dss"), "frame-analytics": _frame_analytics("dss", **FLOAT)}),
    Case("iw-ssim", {"piq": _piq("information_weighted_ssim"), "frame-analytics": _frame_analytics("iw_ssim", **LUMA)}),
    Case("vif-p", {"piq": _piq("vif_p"), "frame-analytics": _frame_analytics("vifp", **LUMA)}),
    Case("vif", {"pyiqa": _pyiqa("vif")}, 1e-2, _ROUNDS),
    Case("nlpd", {"frame-analytics": _frame_analytics("nlpd", **LUMA), "pyiqa": _pyiqa("nlpd")}, note=_ROUNDS),
    Case("cw-ssim", {"pyiqa": _pyiqa("cw_ssim")}, 5e-3, _ROUNDS),
    Case("psnr-hvs-m", {"frame-analytics": _of_luma("psnr_hvs_m")}),
    Case("ssimulacra2", {"frame-analytics": _frame_analytics("ssimulacra2", **FLOAT)}),
    Case("flip", {"frame-analytics": _frame_analytics("flip", **FLOAT)}),
    Case("pieapp", {"piq": lambda: _piq_network("PieAPP"), "pyiqa": _pyiqa("pieapp", pretrained=False)}, None),
    Case("wadiqam-fr", {"pyiqa": _pyiqa("wadiqam_fr", pretrained=False)}, None),
    Case("wadiqam-nr", {"pyiqa": _pyiqa("wadiqam_nr", pretrained=False)}, None),
    Case("cnniqa", {"pyiqa": _pyiqa("cnniqa", pretrained=None)}, None),
    Case("piqe-pyiqa", {"pyiqa": _pyiqa("piqe")}),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="only these of ours, and no result file")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds a case for rounds beyond the first three")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    facts = environment(torch.device("cpu"))
    processes = multiprocessing.get_context("forkserver")
    rows, troubles = [], []
    for case in CASES:
        if options.metrics and case.name not in options.metrics:
            continue
        calls = contenders(case, troubles)
        peaks = {}
        for who in calls:
            with processes.Pool(1) as pool:
                peaks[who] = pool.apply(peaks_of, (case.name, who, facts["threads"]))
        for size in SIZES:
            pair = images(1, size, torch.device("cpu"))
            same = {who: call for who, call in calls.items() if who == OURS or agrees(case, who, calls, pair, troubles)}
            for work in WORK:
                ratios = race(same, work, pair, options.budget)
                rows += [
                    {"metric": case.name, "size": size, "work": work, "peer": who, "time": ratio}
                    | {"memory": peaks[who][size, work] / peaks[OURS][size, work], "MiB": peaks[OURS][size, work] / MIB}
                    for who, ratio in ratios.items()
                ]
                print(case.name, size, work, *(brief(row) for row in rows[-len(ratios) :]), flush=True)
    print(*troubles, sep="\n")
    if not options.metrics:
        (options.out / "zoo-cpu.md").write_text(report(facts, rows, troubles))
    return 0


def contenders(case: Case, troubles: list[str]) -> dict[str, Call]:
    """Ours and the peers that can be built."""
    calls = {OURS: case.call(OURS)}
    for who in case.peers:
        try:
            calls[who] = case.call(who)
        except Exception as error:
            troubles.append(f"{case.name}: {who} cannot be built: {type(error).__name__}: {error}"[:200])
    return calls


def agrees(case: Case, who: str, calls: dict[str, Call], pair: tuple[Tensor, Tensor], troubles: list[str]) -> bool:
    """Whether a peer computes our function."""
    with torch.no_grad():
        ours, theirs = (calls[name](*pair).mean().item() for name in (OURS, who))
    off = abs(theirs / ours - 1)
    if case.tolerance is None or off <= case.tolerance:
        return True
    troubles.append(f"{case.name} at {pair[0].shape[-1]} px: {who} is {off:.1e} from ours, so not compared")
    return False


def do(call: Call, work: str, image: Tensor, reference: Tensor) -> None:
    if work == "score":
        with torch.no_grad():
            call(image, reference)
    else:
        call(image.detach().requires_grad_(), reference).mean().backward()


def race(calls: dict[str, Call], work: str, pair: tuple[Tensor, Tensor], budget: float) -> dict[str, dict[str, Any]]:
    """Quartiles of each peer's time over ours, by round; without those that have no gradient."""
    seconds = {}
    for who, call in calls.items():
        try:
            do(call, work, *pair)
            seconds[who] = timed(call, work, pair, 1)
        except RuntimeError:
            continue
    if OURS not in seconds:
        return {}
    samples: dict[str, list[float]] = {who: [] for who in seconds}
    started, order = time.perf_counter(), list(seconds)
    for index in range(ROUNDS[1]):
        if index >= ROUNDS[0] and time.perf_counter() - started > budget:
            break
        for who in order if index % 2 == 0 else reversed(order):
            samples[who].append(timed(calls[who], work, pair, max(1, math.ceil(SAMPLE / seconds[who]))))
    return {who: quartiles(samples[who], samples[OURS]) for who in order if who != OURS}


def timed(call: Call, work: str, pair: tuple[Tensor, Tensor], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        do(call, work, *pair)
    return (time.perf_counter() - started) / repeats


def peaks_of(name: str, who: str, threads: int) -> dict[tuple[int, str], float]:
    """In a process of its own: the bytes that each kind of work adds, by size; nan where it fails."""
    torch.set_num_threads(threads)
    call = next(case for case in CASES if case.name == name).call(who)
    device, found = torch.device("cpu"), {}
    for work in WORK:
        for size in (WARM_SIZE, *SIZES):
            pair = images(1, size, device)
            gc.collect()
            base = allocated(device)
            lower_the_mark(device)
            try:
                do(call, work, *pair)
                found[size, work] = float(highest(device) - base)
            except RuntimeError:
                found[size, work] = math.nan
    return found


def brief(row: dict[str, Any]) -> str:
    return f"{row['peer']} {row['time']['median']:.2f} ({row['memory']:.2f})"


def report(facts: dict[str, Any], rows: list[dict[str, Any]], troubles: list[str]) -> str:
    lines = heading("Time and memory of the zoo against PyPI peers", facts, "Both sides see the same images.")
    lines += [
        "A peer's time over ours, the median of the rounds with quartiles in brackets: above 1 we are faster. A *step*",
        "is forward and backward to the image. *Memory* is a peer's peak above what was loaded, over ours, and ours in",
        "MiB. One image, float32. frame-analytics compiles its functions by torch.compile; all others run as they are.",
        "",
        "| metric | px | peer | score | step | memory, score | memory, step | ours, MiB |",
        "|---" * 8 + "|",
    ]
    for key in dict.fromkeys((row["metric"], row["size"], row["peer"]) for row in rows):
        both = {row["work"]: row for row in rows if (row["metric"], row["size"], row["peer"]) == key}
        times = [spread(both[work]["time"]) if work in both else "" for work in WORK]
        memory = [f"{both[work]['memory']:.2f}" if work in both else "" for work in WORK]
        own = ", ".join(f"{both[work]['MiB']:.0f}" for work in WORK if work in both)
        lines.append("| " + " | ".join([key[0], str(key[1]), key[2], *times, *memory, own]) + " |")
    notes = dict.fromkeys(f"* {case.name}: {case.note}." for case in CASES if case.note)
    return "\n".join([*lines, "", *notes, *(f"* {line}." for line in troubles)]) + "\n"


def spread(times: dict[str, Any]) -> str:
    return f"{times['median']:.2f} [{times['low']:.2f}, {times['high']:.2f}]"


if __name__ == "__main__":
    sys.exit(main())
