"""Time of a loss step, forward and backward to the image, against PyPI peers: `python benchmarks/speed.py`.

In one process and on the same tensors, every contender of a case runs once per round, peers and ours in turn, every
second round in reverse order, so that drift of the machine affects all alike. A ratio is a peer's time over ours within
one round; the tables give the median over the rounds and the quartiles. Above 1 we are faster. Times themselves are not
reported: they mean nothing on another machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peers import COMPARISONS, Comparison
from steps import MODES, RESULTS, SAME_WEIGHTS, Mode, Step, environment, heading, images
from torch.utils.flop_counter import FlopCounterMode

import mdiqa_metric

SAMPLE = 0.02  # seconds; shorter steps are repeated within a sample
ROUNDS = (3, 25)  # at least and at most
SLOW = 4  # times ours: a slower peer stops after the first rounds
OURS, ENCODED = "ours", "ours encoded"

Key = tuple[str, str]  # who, mode


def main() -> int:
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True
    device = torch.device(options.device)
    facts = environment(device) | {"peak GFLOP/s": peak_rate(device)}
    cases: list[dict[str, Any]] = []
    refused: list[str] = []
    for comparison, size, batch in grid(options, device):
        started = time.perf_counter()
        race = Race(comparison, size, batch, device)
        race.enter_ours()
        for index, name in enumerate(comparison.peers_at(size, batch, device)):
            race.enter_peer(name, race.modes if device.type == "cuda" or index == 0 else race.modes[:1])
        race.run(options.budget)
        cases.append(race.result())
        refused += race.refused
        print(summary_line(cases[-1], time.perf_counter() - started), flush=True)
    for line in refused:
        print("NOT COMPARED", line)
    if not options.quick:
        options.out.mkdir(parents=True, exist_ok=True)
        stem = options.out / f"speed-{device.type}"
        stem.with_suffix(".json").write_text(
            json.dumps({"environment": facts, "cases": cases, "refused": refused}, indent=1) + "\n"
        )
        stem.with_suffix(".md").write_text(report(facts, cases, refused))
    return 1 if refused else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="only these of ours")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--budget", type=float, default=4.0, help="seconds a case for rounds beyond the first three")
    parser.add_argument("--quick", action="store_true", help="256 px, batch 1, no result file: does everything run?")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def grid(options: argparse.Namespace, device: torch.device) -> Iterator[tuple[Comparison, int, int]]:
    for comparison, size, batch in itertools.product(COMPARISONS, (256, 512), (1, 8)):
        if options.metrics and comparison.name not in options.metrics:
            continue
        if options.quick and (size, batch) != (256, 1):
            continue
        if comparison.name not in mdiqa_metric.list_metrics():
            print(f"{comparison.name} is not in this mdiqa_metric: left out")
        elif comparison.peers_at(size, batch, device):
            yield comparison, size, batch


class Race:
    """One case: every contender's losses, whether they agree, and the seconds of their rounds."""

    def __init__(self, comparison: Comparison, size: int, batch: int, device: torch.device) -> None:
        self.comparison, self.size, self.batch, self.device = comparison, size, batch, device
        self.images = images(batch, size, device)
        self.modes = MODES[device.type]
        self.steps: dict[Key, Step] = {}
        self.first: dict[Key, tuple[torch.Tensor, torch.Tensor]] = {}  # loss and gradient to the image
        self.seconds: dict[Key, float] = {}  # roughly, of a warm step
        self.gflop: dict[str, float] = {}
        self.samples: dict[Key, list[float]] = {}
        self.failed: dict[str, str] = {}
        self.refused: list[str] = []

    def enter_ours(self) -> None:
        ours = self.comparison.ours()
        for mode in self.modes:
            self.enter(OURS, mode, ours)
            if self.comparison.encodes:
                self.enter(ENCODED, mode, ours)
        if self.plain not in self.steps:
            raise RuntimeError(f"Our {self.comparison.label} fails: {self.failed}")
        for key in self.steps:
            error = abs(self.first[key][0].item() / self.first[self.plain][0].item() - 1)
            if error > (3e-2 if "bf16" in key[1] else 1e-4):
                self.refused.append(f"{self.where}, {', '.join(key)}: {error:.1e} off our plain fp32")

    def enter_peer(self, name: str, modes: tuple[Mode, ...]) -> None:
        try:
            peer = self.comparison.peer(name)
        except ModuleNotFoundError as error:
            self.failed[name] = str(error)
            return
        for mode in modes:
            self.enter(name, mode, peer)
        theirs = self.first.get((name, self.plain[1]))
        if theirs and (why := self.comparison.rivals[name].disagreement(self.first[self.plain], theirs)):
            self.refused.append(f"{self.where}, {name}: {why}")
            self.steps = {key: step for key, step in self.steps.items() if key[0] != name}

    def enter(self, who: str, mode: Mode, loss: torch.nn.Module) -> None:
        """The first run, for loss, gradient and work, and if it is short a second one for its time."""
        key = (who, mode.name)
        try:
            step = Step(loss, *self.images, mode)
            if who == ENCODED:
                step.encode()
            started = time.perf_counter()
            if mode is self.modes[0]:
                with FlopCounterMode(display=False) as counter:
                    value = step()
                self.gflop[who] = counter.get_total_flops() / 1e9
            else:
                value = step()
            self.first[key] = value, step.image.grad
            self.seconds[key] = time.perf_counter() - started
            if self.seconds[key] < 1 or self.device.type == "cuda":
                self.seconds[key] = sample(step, 1, self.device)
        except Exception as error:
            self.failed[", ".join(key)] = f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"[:160]
            return
        self.steps[key] = step

    def run(self, budget: float) -> None:
        """Runs the rounds; a contender far slower than ours stops after the first."""
        own = [key for key in self.steps if key[0] in (OURS, ENCODED)]
        peers = [key for key in self.steps if key not in own]
        order = [key for pair in itertools.zip_longest(peers, own) for key in pair if key is not None]
        self.samples = {key: [] for key in order}
        least, most = ROUNDS
        for index in range(most):
            if index == least:
                order = [key for key in order if self.seconds[key] < SLOW * self.seconds[self.plain]]
                started, a_round = time.perf_counter(), sum(max(SAMPLE, self.seconds[key]) for key in order)
            if index >= least and time.perf_counter() - started + a_round > budget:
                break
            for key in order if index % 2 == 0 else reversed(order):
                repeats = max(1, math.ceil(SAMPLE / self.seconds[key]))
                self.samples[key].append(sample(self.steps[key], repeats, self.device))

    def result(self) -> dict[str, Any]:
        plain_loss, plain_seconds = self.first[self.plain][0].item(), statistics.median(self.samples[self.plain])
        return {
            "metric": self.comparison.label,
            "note": self.comparison.note,
            "size": self.size,
            "batch": self.batch,
            "rounds": max(map(len, self.samples.values())),
            "modes": [mode.name for mode in self.modes],
            "GFLOP": self.gflop,
            "ours GFLOP/s": self.gflop[OURS] / plain_seconds,
            "loss off ours fp32": {", ".join(key): self.first[key][0].item() / plain_loss - 1 for key in self.steps},
            "failed": self.failed,
            "pairs": [
                {"peer": key[0], "peer mode": key[1], "ours": own[0], "ours mode": own[1]}
                | quartiles(self.samples[key], self.samples[own])
                for own in self.steps
                for key in self.steps
                if own[0] in (OURS, ENCODED) and key[0] != ENCODED and key != own
            ],
        }

    @property
    def plain(self) -> Key:
        return OURS, self.modes[0].name

    @property
    def where(self) -> str:
        return f"{self.comparison.label} at {self.size} px, batch {self.batch}"


def sample(step: Step, repeats: int, device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    wait()
    started = time.perf_counter()
    for _ in range(repeats):
        step()
    wait()
    return (time.perf_counter() - started) / repeats


def peak_rate(device: torch.device) -> float:
    """GFLOP/s of a large float32 matrix product, the best that this device reaches."""
    size = 2048 if device.type == "cpu" else 8192
    left, right = torch.randn(2, size, size, device=device)
    multiply = lambda: left @ right  # noqa: E731
    return 2e-9 * size**3 / min(sample(multiply, 1, device) for _ in range(6))


def quartiles(theirs: list[float], ours: list[float]) -> dict[str, Any]:
    ratios = [other / own for other, own in zip(theirs, ours, strict=False)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {"low": low, "median": middle, "high": high, "ratios": [round(ratio, 4) for ratio in ratios]}


# The report ----------------------------------------------------------------------------------------------------------


def find(case: dict[str, Any], peer: str, peer_mode: str, ours: str, ours_mode: str) -> dict[str, Any] | None:
    wanted = (peer, peer_mode, ours, ours_mode)
    for pair in case["pairs"]:
        if (pair["peer"], pair["peer mode"], pair["ours"], pair["ours mode"]) == wanted:
            return pair
    return None


def peers_of(case: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(pair["peer"] for pair in case["pairs"] if pair["peer"] != OURS))


def summary_line(case: dict[str, Any], seconds: float) -> str:
    pairs = [pair for name in peers_of(case) if (pair := find(case, name, "fp32", OURS, "fp32"))]
    ratios = ", ".join(f"{pair['peer']} {pair['median']:.2f}" for pair in pairs)
    extra = [
        f"{text} {pair['median']:.2f}"
        for text, pair in (
            ("encoded", find(case, OURS, "fp32", ENCODED, "fp32")),
            ("bf16", find(case, OURS, "fp32", OURS, "bf16")),
        )
        if pair
    ]
    failed = f"; failed: {case['failed']}" if case["failed"] else ""
    return (
        f"{case['metric']:14} {case['size']} px x {case['batch']}: {ratios} | over our own fp32: {', '.join(extra)} "
        f"({case['rounds']} rounds, {seconds:.0f} s){failed}"
    )


def report(facts: dict[str, Any], cases: list[dict[str, Any]], refused: list[str]) -> str:
    lines = heading("Speed of a loss step against PyPI peers", facts, SAME_WEIGHTS)
    lines += [
        "A step is forward and backward to the image. Each number is a peer's time over ours: above 1 we are faster.",
        "Contenders run interleaved in one process; medians over the rounds, quartiles in brackets. *Encoded* means",
        "that our reference went through the backbone beforehand (`metric.encode`). The column *our fp32* is our",
        "plain fp32 step over the row's own. Some peers run only the smallest case: they or the case are slow.",
        "",
        "## In short",
        "",
        "Ranges are over sizes and batches; *lead* is the first peer of a metric's table, *fastest* each case's own.",
        "",
        "| metric | lead | fp32, lead | fp32, fastest | plain over encoded | bf16, lead in bf16 | bf16, lead in fp32 |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = {name: list(group) for name, group in itertools.groupby(cases, key=lambda case: case["metric"])}
    for name, group in groups.items():
        lead = peers_of(group[0])[0] if peers_of(group[0]) else ""
        columns = (
            [find(case, lead, "fp32", OURS, "fp32") for case in group],
            [fastest(case) for case in group],
            [find(case, OURS, "fp32", ENCODED, "fp32") for case in group],
            [find(case, lead, "bf16", OURS, "bf16") for case in group],
            [find(case, lead, "fp32", OURS, "bf16") for case in group],
        )
        lines.append(f"| {name} | {lead} | " + " | ".join(span(column) for column in columns) + " |")
    for name, group in groups.items():
        lines += ["", f"## {name}", ""] + (
            [f"{group[0]['note'][0].upper()}{group[0]['note'][1:]}.", ""] if group[0]["note"] else []
        )
        lines += table(group) + bound(group, facts) + troubles(group)
    if refused:
        lines += ["", "## Not compared", "", *(f"* {line}" for line in refused)]
    return "\n".join(lines) + "\n"


def fastest(case: dict[str, Any]) -> dict[str, Any] | None:
    pairs = [pair for name in peers_of(case) if (pair := find(case, name, "fp32", OURS, "fp32"))]
    return min(pairs, key=lambda pair: pair["median"], default=None)


def span(pairs: list[dict[str, Any] | None]) -> str:
    medians = [pair["median"] for pair in pairs if pair]
    if not medians:
        return ""
    low, high = f"{min(medians):.2f}", f"{max(medians):.2f}"
    return low if low == high else f"{low} to {high}"


def table(group: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for case in group for name in peers_of(case)))
    lines = [
        "| px | batch | ours | peers | rounds | " + " | ".join(names) + " | our fp32 |",
        "|---" * (len(names) + 6) + "|",
    ]
    for case in group:
        plain = case["modes"][0]
        for mode, who in itertools.product(case["modes"], (OURS, ENCODED)):
            for peer_mode in dict.fromkeys((mode, plain)):
                pairs = [find(case, name, peer_mode, who, mode) for name in names]
                own = find(case, OURS, plain, who, mode)
                if not any(pairs) and own is None:
                    continue
                label = mode + (", encoded" if who != OURS else "")
                cells = [cell(pair) for pair in (*pairs, own)]
                lines.append(
                    f"| {case['size']} | {case['batch']} | {label} | {peer_mode} | {case['rounds']} | "
                    + " | ".join(cells)
                    + " |"
                )
    return lines


def cell(pair: dict[str, Any] | None) -> str:
    return f"{pair['median']:.2f} [{pair['low']:.2f}, {pair['high']:.2f}]" if pair else ""


def bound(group: list[dict[str, Any]], facts: dict[str, Any]) -> list[str]:
    """The step's GFLOP/s next to the device's best, and how far bf16 moves the loss."""
    work = max(group, key=lambda case: case["GFLOP"][OURS])
    plain = work["modes"][0]
    lines = []
    if work["GFLOP"][OURS] >= 1:
        counts = ", ".join(f"{who} {value:.1f}" for who, value in work["GFLOP"].items())
        share = work["ours GFLOP/s"] / facts["peak GFLOP/s"]
        lines += [
            "",
            f"GFLOP a step at {work['size']} px, batch {work['batch']}: {counts}. Ours in {plain} runs at "
            f"{work['ours GFLOP/s']:.0f} GFLOP/s, {share:.0%} of what a large matrix product reached here "
            f"({facts['peak GFLOP/s']:.0f}).",
        ]
    worst: dict[str, float] = {}
    for case in group:
        for name, error in case["loss off ours fp32"].items():
            if "bf16" in name:
                who = name.partition(",")[0]
                worst[who] = max(worst.get(who, 0.0), abs(error))
    if worst:
        lines += [
            "",
            "Loss under bf16, farthest from our fp32: "
            + ", ".join(f"{who} {error:.1e}" for who, error in worst.items())
            + ".",
        ]
    return lines


def troubles(group: list[dict[str, Any]]) -> list[str]:
    failed = dict.fromkeys(f"{name}: {why}" for case in group for name, why in case["failed"].items())
    notes = dict.fromkeys(
        f"{name} {rival.note}"
        for comparison in COMPARISONS
        if comparison.label == group[0]["metric"]
        for name, rival in comparison.rivals.items()
        if rival.note
    )
    return (["", "; ".join(notes) + "."] if notes else []) + (["", "Failed: " + "; ".join(failed)] if failed else [])


if __name__ == "__main__":
    sys.exit(main())
