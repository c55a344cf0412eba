"""Peak memory of a loss step, forward and backward to the image, against PyPI peers: `python benchmarks/memory.py`.

On a CPU this is the peak resident memory that a step adds to a process that already holds the imports, the network and
the images, and has run one small step (threads, code generated at run time). Each contender has a fresh process, forked
from one that has only imported. The kernel keeps the highest resident size (VmHWM), which is reset before the step
(/proc/self/clear_refs), so every byte that is touched counts, including oneDNN's scratch memory, which a count of
tensors would miss. glibc would disturb this: its threshold for memory that is returned to the system at once grows up
to 32 MiB, and freed tensors then stay in arenas. MALLOC_MMAP_THRESHOLD_ fixes it at 64 KiB, so that a tensor is
resident only while it lives, and MALLOC_ARENA_MAX leaves one arena for the rest. Repeated measurements differ by
0.2 MiB, and torch.profiler's count of allocations is at most 2% lower.

An encoded reference counts as ours: its features are made after the base line is read and live throughout the step.

On CUDA: `torch.cuda.max_memory_allocated` above what was allocated before the step.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

GLIBC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
os.environ.update(GLIBC)  # read by the fork server, which starts as a new program

import torch  # noqa: E402
from peers import COMPARISONS, Comparison  # noqa: E402
from steps import MODES, RESULTS, SAME_WEIGHTS, Mode, Step, environment, heading, images  # noqa: E402

import mdiqa_metric  # noqa: E402

OURS = "ours"
ENCODED = "ours encoded"
WARM_SIZE = 176  # MS-SSIM needs at least 161
MIB = 2**20


def main() -> int:
    options = arguments()
    device = torch.device(options.device)
    if device.type == "cpu" and not Path("/proc/self/clear_refs").exists():
        raise SystemExit("Memory on a CPU is measured through Linux's /proc: run this on Linux, or with --device cuda.")
    processes = multiprocessing.get_context("forkserver")
    # Whatever is slow to import, except pyiqa, which must be imported under `stand_in_weights`.
    processes.set_forkserver_preload(["peers", "steps", "torchvision", "torchmetrics.functional.image", "piq", "piqa"])
    facts = environment(device) | {"glibc": GLIBC}
    sizes = [(256, 1)] if options.quick else list(itertools.product((256, 512), (1, 8)))
    rows, refused = [], []
    for comparison in COMPARISONS:
        if options.metrics and comparison.name not in options.metrics:
            continue
        if comparison.name not in mdiqa_metric.list_metrics():
            print(f"{comparison.name} is not in this mdiqa_metric: left out")
            continue
        for mode in MODES[device.type]:
            peaks = {}
            for who in contenders(comparison, mode):
                cases = [case for case in sizes if takes_part(comparison, who, case, device)]
                with processes.Pool(1) as pool:
                    task = (comparison.label, who, mode, cases, device, options.threads)
                    peaks[who] = pool.apply(peak_of, task)
            rows += merge(comparison, mode, peaks, refused)
            print(comparison.label, mode.name, brief(rows, comparison, mode), flush=True)
    for line in refused:
        print("NOT COMPARED", line)
    if not options.quick:
        options.out.mkdir(parents=True, exist_ok=True)
        stem = options.out / f"memory-{device.type}"
        stem.with_suffix(".json").write_text(
            json.dumps({"environment": facts, "rows": rows, "refused": refused}, indent=1) + "\n"
        )
        stem.with_suffix(".md").write_text(report(facts, rows, refused))
    return 1 if refused else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="only these of ours")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="256 px, batch 1, no result file: does everything run?")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def contenders(comparison: Comparison, mode: Mode) -> list[str]:
    """Who runs in a mode: all in the first mode, ours and the first peer in the others."""
    own = [OURS, ENCODED] if comparison.encodes else [OURS]
    peers = list(comparison.rivals)
    return own + (peers if mode is MODES["cpu"][0] or mode is MODES["cuda"][0] else peers[:1])


def takes_part(comparison: Comparison, who: str, case: tuple[int, int], device: torch.device) -> bool:
    peers = comparison.peers_at(*case, device)
    return bool(peers) and (who in (OURS, ENCODED) or who in peers)


def peak_of(
    label: str, who: str, mode: Mode, sizes: list[tuple[int, int]], device: torch.device, threads: int
) -> dict[tuple[int, int], tuple[int, float]] | str:
    """In the child: (bytes above the base line, loss) by case, or the reason for their absence."""
    torch.set_num_threads(threads)
    comparison = next(comparison for comparison in COMPARISONS if comparison.label == label)
    try:
        loss = comparison.ours() if who in (OURS, ENCODED) else comparison.peer(who)
        gc.collect()
        Step(loss, *images(1, WARM_SIZE, device), mode)()
        return {(size, batch): one_peak(loss, size, batch, mode, who == ENCODED, device) for size, batch in sizes}
    except Exception as error:
        reason = str(error).strip().splitlines()
        return f"{type(error).__name__}: {reason[0] if reason else ''}"[:160]


def one_peak(
    loss: torch.nn.Module, size: int, batch: int, mode: Mode, encoded: bool, device: torch.device
) -> tuple[int, float]:
    image, reference = images(batch, size, device)
    step = Step(loss, image, reference, mode)
    if device.type == "cuda":  # the compiler's trials do not belong to a step
        step()
        step.image.grad = None
    gc.collect()
    base = allocated(device)
    if encoded:
        step.encode()
    lower_the_mark(device)
    value = step()
    return highest(device) - base, value.item()


def allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else _status("VmRSS")


def highest(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def lower_the_mark(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"This kernel's /proc/self/status has no {field}.")


# The report ----------------------------------------------------------------------------------------------------------


def merge(comparison: Comparison, mode: Mode, peaks: dict[str, Any], refused: list[str]) -> list[dict[str, Any]]:
    """One row per case: our peak and, where losses agree, every peer's."""
    if isinstance(peaks[OURS], str):
        raise RuntimeError(f"Our {comparison.label} fails in {mode.name}: {peaks[OURS]}")
    rows = []
    for (size, batch), (ours, value) in peaks[OURS].items():
        where = f"{comparison.label}, {mode.name}, {size} px, batch {batch}"
        row = {"metric": comparison.label, "mode": mode.name, "size": size, "batch": batch, "ours MiB": ours / MIB}
        row["peers MiB"], row["failed"] = {}, {}
        for who, result in peaks.items():
            if isinstance(result, str):
                row["failed"][who] = result
            elif who != OURS and (size, batch) in result:
                peak, other = result[size, batch]
                tolerance = comparison.rivals[who].tolerance if who != ENCODED else 1e-4
                if not mode.bf16 and abs(other / value - 1) > tolerance:
                    refused.append(f"{where}: the loss of {who} is {other / value - 1:.1e} away from ours")
                    continue
                row["peers MiB"][who] = peak / MIB
        rows.append(row)
    return rows


def brief(rows: list[dict[str, Any]], comparison: Comparison, mode: Mode) -> str:
    mine = [row for row in rows if (row["metric"], row["mode"]) == (comparison.label, mode.name)]
    return "; ".join(
        f"{row['size']} px x {row['batch']}: ours {row['ours MiB']:.0f} MiB, "
        + ", ".join(f"{who} {peak / row['ours MiB']:.2f}" for who, peak in row["peers MiB"].items())
        + "".join(f", {who} FAILED {why}" for who, why in row["failed"].items())
        for row in mine
    )


def report(facts: dict[str, Any], rows: list[dict[str, Any]], refused: list[str]) -> str:
    lines = heading("Peak memory of a loss step against PyPI peers", facts, SAME_WEIGHTS)
    lines += [
        "Peak memory that forward and backward to the image add to the loaded network and images: a peer's",
        "over ours, above 1 we need less. `benchmarks/memory.py` explains the method. *Plain over encoded* is our",
        "plain step over ours with a reference encoded beforehand, whose features count as part of it.",
    ]
    for name, group in itertools.groupby(rows, key=lambda row: row["metric"]):
        group = list(group)
        peers = [who for who in dict.fromkeys(who for row in group for who in row["peers MiB"]) if who != ENCODED]
        encodes = any(ENCODED in row["peers MiB"] for row in group)
        columns = ["px", "batch", "mode", "ours, MiB", *peers, *(["plain over encoded"] if encodes else [])]
        lines += ["", f"## {name}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        for row in group:
            cells = [
                f"{row['peers MiB'][who] / row['ours MiB']:.2f}" if who in row["peers MiB"] else "" for who in peers
            ]
            if encodes:
                cells.append(
                    f"{row['ours MiB'] / row['peers MiB'][ENCODED]:.2f}" if ENCODED in row["peers MiB"] else ""
                )
            first = [row["size"], row["batch"], row["mode"], f"{row['ours MiB']:.0f}"]
            lines.append("| " + " | ".join(map(str, [*first, *cells])) + " |")
        failed = dict.fromkeys(f"{who}, {row['mode']}: {why}" for row in group for who, why in row["failed"].items())
        lines += ["", "Failed: " + "; ".join(failed) + "."] if failed else []
    if refused:
        lines += ["", "## Not compared", "", *(f"* {line}" for line in refused)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
