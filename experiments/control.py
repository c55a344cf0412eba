"""How a restoration network responds to MDIQA-lite's weights: `python experiments/control.py DATA [--work FOLDER]`.

Networks, degradations and training are those of examples/steer_restoration.py. For each seed one network is trained
with L1 alone, and copies of it are trained further for the same steps on the same crops: with L1 alone, with MDIQA-lite
at each weight of sharpness and of noisiness (the others 1), and, for comparison, with ST-LPIPS and with MDIQA-lite's
overall score. Another copy gets the knobs of examples/steer_at_test_time.py, is trained for longer, and is steered at
test time. All are trained on DATA/kodak24 and measured on DATA/bsds500. Writes results/control.md and .json: how
measures that use no model correlate with the weights, and what steering costs.

An interrupted run resumes: finished runs are lines in the work folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch import Tensor

import mdiqa_metric
from mdiqa_metric import DimensionMean, Loss, Metric, MultiDimensional
from mdiqa_metric.data.pairing import list_images

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "benchmarks"), str(HERE.parent / "examples")]
import steer_at_test_time as knobs
import steer_restoration as example
from restoration_measures import measure
from steps import environment, heading

WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0)
# The measures of each dimension that use no model, and whether they should rise (1) or fall (-1) with its weight.
MEASURES = {
    "sharpness": {"gradient energy": 1, "edge gain": 1},
    "noisiness": {"residual noise": -1, "flat deviation": -1},
}
PROGRAMS = ("steer_restoration.py", "restoration_measures.py", "steer_at_test_time.py")
OBJECTIVES = {
    "off": "L1 alone",
    "neutral": "MDIQA-lite, mean of dimensions, all weights 1",
    "overall": "MDIQA-lite, overall score",
    "st-lpips": "ST-LPIPS",
    "knobs": "MDIQA-lite, one network with knobs, both at 1",
}
AIM, WITHIN = 0.9, 1.0  # of |rho|, and of dB
Row = dict[str, Any]


def setting(dimension: str, weight: float) -> str:
    """The name of a run; weight 1 of any dimension is the neutral one."""
    return "neutral" if weight == 1 else f"{dimension} {weight:g}"


STEERED = {setting(dimension, weight): {dimension: weight} for dimension in MEASURES for weight in WEIGHTS}
RUNS = list(dict.fromkeys([*OBJECTIVES, *STEERED]))


def rows(
    metric: MultiDimensional, train_images: Sequence[Tensor], held_out: Sequence[Tensor], protocol: Row, work: Path
) -> Iterator[Row]:
    """Yields one row per seed and run, from the work folder if it is there."""
    # Runs of another protocol or metric must not be mixed with these.
    folder = work / hashlib.sha256(json.dumps(protocol).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "runs.jsonl"
    found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(row["seed"], row["name"]): row for row in found}
    for seed in range(protocol["seeds"]):
        for name in RUNS:
            if (seed, name) not in done:
                done[seed, name] = run(metric, train_images, held_out, protocol, folder, seed, name)
                with file.open("a") as lines:
                    lines.write(json.dumps(done[seed, name]) + "\n")
            yield done[seed, name]


def run(
    metric: MultiDimensional,
    train_images: Sequence[Tensor],
    held_out: Sequence[Tensor],
    protocol: Row,
    folder: Path,
    seed: int,
    name: str,
) -> Row:
    """Trains one network further and measures it."""
    network = pretrained(metric, train_images, protocol, folder / f"{seed}.safetensors", seed)
    device = next(metric.parameters()).device
    references = [image.to(device) for image in held_out]
    low = [example.degrade(image, Random(index), shots=2).to(device) for index, image in enumerate(held_out)]

    def measured(restore: Callable[[Tensor], Tensor]) -> dict[str, float]:
        return measure(metric, example.restore_images(restore, low), references)

    row: Row = {"seed": seed, "name": name}
    started = time.perf_counter()
    if name == "knobs":
        with_knobs = knobs.SteerableRestorer().to(device)
        with_knobs.load_state_dict(network.state_dict(), strict=False)
        steps, row["weight"] = protocol["steps with knobs"], protocol["weight"]
        knobs.train(with_knobs, metric, train_images, steps, protocol["rate"], row["weight"], seed=1000 + seed)
        row["seconds a step"] = (time.perf_counter() - started) / steps
        row["turned"] = {to: measured(knobs.set_knobs(with_knobs, **weights)) for to, weights in STEERED.items()}
        return row | {"figures": row["turned"]["neutral"]}
    objective, row["weight"] = objective_of(name, metric, network, train_images, protocol["weight"])
    example.train(network, train_images, objective, protocol["steps"], protocol["rate"], seed=1000 + seed)
    row["seconds a step"] = (time.perf_counter() - started) / protocol["steps"]
    return row | {"figures": measured(network)}


def pretrained(
    metric: MultiDimensional, train_images: Sequence[Tensor], protocol: Row, file: Path, seed: int
) -> example.Restorer:
    """The network that this seed's runs start from."""
    torch.manual_seed(seed)
    network = example.Restorer().to(next(metric.parameters()).device)
    if not file.exists():
        example.train(network, train_images, F.l1_loss, protocol["pre-training"], protocol["pre-training rate"], seed)
        save_file(network.state_dict(), file.with_suffix(".part"))
        file.with_suffix(".part").rename(file)
    network.load_state_dict(load_file(file))
    return network


def objective_of(
    name: str, metric: MultiDimensional, network: example.Restorer, train_images: Sequence[Tensor], weight: float
) -> tuple[example.Objective, float]:
    """What a run minimizes, and the weight of its frozen metric.

    Metrics differ in scale: each gets the weight at which its gradient to the restored images initially has the same
    norm as that of MDIQA-lite's neutral mean.
    """
    if name == "off":
        return F.l1_loss, 0.0
    if name in STEERED:
        factors = {} if name == "neutral" else STEERED[name]
        return example.steered_objective(metric, weight, **factors), weight
    metric.set_weights(torch.ones(len(metric.dimension_names)))
    device = next(metric.parameters()).device
    other = mdiqa_metric.create("stlpips-alex").to(device) if name == "st-lpips" else metric
    matched = (
        weight
        * gradient_norm(DimensionMean(metric), network, train_images)
        / gradient_norm(other, network, train_images)
    )
    loss = Loss(other, matched)

    def objective(restored: Tensor, clean: Tensor) -> Tensor:
        references = (clean,) if other.full_reference else ()
        return F.l1_loss(restored, clean) + loss(restored.clamp(0, 1), *references)

    return objective, matched


def gradient_norm(metric: Metric, network: example.Restorer, train_images: Sequence[Tensor]) -> float:
    """The mean norm of a metric's gradient to restored images, over a few batches."""
    loss, norms = Loss(metric), []
    device = next(network.parameters()).device
    for low, clean in example.batches(train_images, 8, seed=-1):
        with torch.no_grad():
            restored = network(low.to(device)).clamp(0, 1)
        references = (clean.to(device),) if metric.full_reference else ()
        (gradient,) = torch.autograd.grad(loss(restored.requires_grad_(), *references), restored)
        norms.append(gradient.norm().item())
    return statistics.mean(norms)


def responses(found: Sequence[Row]) -> list[Row]:
    """Spearman's correlation of weight and measure, by seed and pooled, for each dimension and measure.

    Pooled values are differences to the seed's neutral run, because every seed starts from another network.
    """
    by_run = {(row["seed"], row["name"]): row["figures"] for row in found}
    seeds = sorted({row["seed"] for row in found})
    rows = []
    for dimension, measures in MEASURES.items():
        # Our own score is not an independent measure; it shows whether training did what it should.
        for key, sign in {**measures, dimension: 1}.items():
            values = [[by_run[seed, setting(dimension, weight)][key] for weight in WEIGHTS] for seed in seeds]
            own = [float(spearmanr(WEIGHTS, line).statistic) for line in values]
            apart = [value - line[WEIGHTS.index(1)] for line in values for value in line]
            pooled = float(spearmanr(WEIGHTS * len(seeds), apart).statistic)
            columns = zip(*values, strict=True)
            means = {f"{weight:g}": spread(column) for weight, column in zip(WEIGHTS, columns, strict=True)}
            row: Row = {"dimension": dimension, "measure": key, "independent": key != dimension}
            row |= {"wanted": sign, "rho": {"pooled": pooled, "by seed": own}, "means": means}
            row["reached"] = min(sign * rho for rho in (pooled, statistics.mean(own))) >= AIM
            rows.append(row)
    return rows


def costs(found: Sequence[Row]) -> dict[str, Row]:
    """Figures of each run and their differences to the same seed's with L1 alone: mean and deviation over seeds."""
    off = {row["seed"]: row["figures"] for row in found if row["name"] == "off"}
    table = {}
    for name in RUNS:
        own = [row for row in found if row["name"] == name]
        table[name] = {
            "weight": spread([row["weight"] for row in own]),
            "seconds a step": spread([row["seconds a step"] for row in own]),
            "figures": {key: spread([row["figures"][key] for row in own]) for key in own[0]["figures"]},
            "gained": {
                key: spread([row["figures"][key] - off[row["seed"]][key] for row in own])
                for key in ("PSNR", "ST-LPIPS")
            },
        }
    return table


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.mean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}


def knob_responses(found: Sequence[Row]) -> list[Row]:
    """As `responses`, of the networks with knobs."""
    runs = [row for row in found if row["name"] == "knobs"]
    return responses(
        [{"seed": row["seed"], "name": to, "figures": it} for row in runs for to, it in row["turned"].items()]
    )


def report(facts: Row, protocol: Row, response: Sequence[Row], turned: Sequence[Row], cost: dict[str, Row]) -> str:
    """The tables of a result, in Markdown."""
    lines = heading("Steering a restoration network", facts, f"Metric: {protocol['metric']}.")
    lines += [
        f"{protocol['seeds']} seeds, each with a network of its own ({protocol['parameters']} parameters), trained",
        f"{protocol['pre-training']} steps with L1 alone and {protocol['steps']} more for each row, from one start and",
        f"on the same crops of {protocol['train images']} Kodak images. Measured on",
        f"{protocol['held-out images']} images of BSDS500. The weight of the quality is {protocol['weight']:g}, that",
        "of L1 is 1. Means and deviations over seeds.",
        "",
        "## Weight of a dimension and measures that use no model",
        "",
        "Spearman's correlation of weight and measure, by seed, and of all seeds' differences to their neutral run.",
        "The last line of each dimension is its own score, which shows whether training did what it should.",
        "",
        *_response(response),
        "",
        "## One network, steered at test time",
        "",
        f"The same for networks that take the weights as input, trained {protocol['steps with knobs']} steps more, at",
        "random weights for each image.",
        "",
        *_response(turned),
    ]
    lost = -cost["neutral"]["gained"]["PSNR"]["mean"]
    lines += [
        "",
        "## What it costs",
        "",
        "PSNR (higher is better) and ST-LPIPS (lower is better) against L1 alone, seed by seed. At all weights 1 PSNR "
        f"falls by {lost:.2f} dB:",
        f"the aim, within {WITHIN:g} dB, is {'reached' if lost <= WITHIN else 'missed'}.",
        "",
        "| setting | PSNR | against L1 alone | ST-LPIPS | against L1 alone |",
        "|---|---|---|---|---|",
    ]
    for name in ("off", *STEERED):
        both = [_cell(cost[name][part][key]) for key in ("PSNR", "ST-LPIPS") for part in ("figures", "gained")]
        lines.append(f"| {name} | {' | '.join(both)} |")
    names = list(cost["off"]["figures"])
    lines += [
        "",
        "## Other objectives, same budget",
        "",
        "Each metric has the weight at which its gradient initially has the norm of MDIQA-lite's neutral mean.",
        "",
        f"| objective | weight | s a step | {' | '.join(names)} |",
        "|---" * (len(names) + 3) + "|",
    ]
    for name, words in OBJECTIVES.items():
        row = cost[name]
        cells = [f"{row['weight']['mean']:.3g}", f"{row['seconds a step']['mean']:.2f}"]
        cells += [_cell(row["figures"][key]) for key in names]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _response(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| dimension | measure | rho, all seeds together | by seed | at weight "
        f"{' | '.join(f'{weight:g}' for weight in WEIGHTS)} | {AIM:g} reached |",
        "|---" * (len(WEIGHTS) + 5) + "|",
    ]
    for row in rows:
        own = ", ".join(f"{rho:.2f}" for rho in row["rho"]["by seed"])
        means = [_cell(row["means"][f"{weight:g}"]) for weight in WEIGHTS]
        reached = ("yes" if row["reached"] else "no") if row["independent"] else "(own score)"
        cells = [row["dimension"], row["measure"], f"{row['rho']['pooled']:.3f}", own, *means, reached]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cell(found: dict[str, float]) -> str:
    return f"{found['mean']:.4g} ± {found['std']:.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("/tmp/mdiqa-control"), help="for finished runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretraining", type=int, default=800, help="steps with L1 alone")
    parser.add_argument("--steps", type=int, default=200, help="of each further run")
    parser.add_argument("--knob-steps", type=int, default=600, help="of the network with knobs")
    parser.add_argument("--weight", type=float, default=0.15, help="of the quality, L1 having weight 1")
    parser.add_argument("--images", type=int, default=12, help="to measure on")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    measure_control(mdiqa_metric.create("mdiqa-lite"), parser.parse_args())


def measure_control(metric: MultiDimensional, options: argparse.Namespace) -> None:
    """Makes all runs that are not finished yet, and writes the result."""
    facts = environment(torch.device(options.device))
    metric = metric.to(options.device)
    train_images = [mdiqa_metric.read_image(path)[0] for path in list_images([options.data / "kodak24"])]
    files = list_images([options.data / "bsds500"])
    files = files[:: max(1, len(files) // options.images)][: options.images]  # from all over the set
    held_out = [mdiqa_metric.read_image(path)[0, :, :-1, :-1] for path in files]  # 481 x 321, made even
    protocol = {
        "metric": metric.set_weights(torch.ones(len(metric.dimension_names))).fingerprint(),
        "programs": [hashlib.sha256((HERE.parent / "examples" / name).read_bytes()).hexdigest() for name in PROGRAMS],
        "device": options.device,
        "seeds": options.seeds,
        "parameters": sum(weight.numel() for weight in example.Restorer().parameters()),
        "pre-training": options.pretraining,
        "pre-training rate": 1e-3,
        "steps": options.steps,
        "steps with knobs": options.knob_steps,
        "rate": 5e-4,
        "weight": options.weight,
        "train images": len(train_images),
        "held-out images": len(held_out),
    }
    found: list[Row] = []
    started = time.perf_counter()
    for row in rows(metric, train_images, held_out, protocol, options.work):
        found.append(row)
        figures = ", ".join(f"{key} {value:.3f}" for key, value in row["figures"].items())
        done = f"{len(found)} of {options.seeds * len(RUNS)}, {time.perf_counter() - started:.0f} s"
        print(f"{done}: seed {row['seed']}, {row['name']}: {figures}", flush=True)
    response, turned, cost = responses(found), knob_responses(found), costs(found)
    content = {"environment": facts, "protocol": protocol, "response": response, "knobs": turned, "cost": cost}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "control.json").write_text(json.dumps({**content, "runs": found}, indent=1) + "\n")
    (options.out / "control.md").write_text(report(facts, protocol, response, turned, cost))


if __name__ == "__main__":
    main()
