"""`mdiqa-metric evaluate`: the agreement of metrics with human opinion on a data set."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .choices import Device, check_destination, check_device
from .metrics import HELP
from .printing import SHOWN, digits, errors, fail, print_lines, progress, say, show, stderr, stdout

Metrics = Annotated[list[str], typer.Option(metavar="NAME", help=HELP)]
More = Annotated[list[str] | None, typer.Argument(metavar="", hidden=True)]
Dataset = Annotated[Path, typer.Option(metavar="TABLE", help="A .csv or .parquet table; see `dataset convert`.")]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Only its train, val or test images.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Write everything to this .json; makes it resumable.")]
Compare = Annotated[
    bool | None,
    typer.Option(
        "--compare/--no-compare", help="Test each two metrics; by default, of up to 6 metrics.", show_default=False
    ),
]
Report = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report to this .html.")]

NUMBERS = ("srcc", "plcc", "plcc_logistic4", "plcc_logistic5", "krcc", "rmse_logistic4", "rmse_logistic5")
SHORT = ("plcc", "plcc_logistic4", "krcc", "rmse_logistic4")  # what a terminal has room for beside srcc
COLUMNS = 5  # metrics beside each other in a table of groups
TESTS = ("srcc_difference", "srcc_difference_p", "meng_p_srcc", "residual_variance_ratio", "residual_variance_p")


def evaluate(
    metric: Metrics,
    dataset: Dataset,
    more: More = None,
    split: Split = None,
    out: Out = None,
    report: Report = None,
    compare: Compare = None,
    device: Device = "cpu",
) -> None:
    """Measure how well metrics agree with human opinion on a data set.

    With --out, scores are saved beside it as they are computed: the same command resumes an interrupted run.

    Many GPUs: `torchrun --nproc-per-node 8 --no-python mdiqa-metric evaluate ... --device cuda`.

    Images that cannot be scored are listed with their reasons and make the exit code 1.
    """
    from ..atomic import write_json
    from ..data.dataset import QualityDataset
    from ..evaluation.evaluate import check_references
    from ..evaluation.evaluate import evaluate as run
    from ..registry import Spec, create

    with errors():
        specs = {str(spec): spec for spec in map(Spec.parse, [*metric, *(more or [])])}
        check_device(device)
        for path, what, suffix in ((out, "Results", ".json"), (report, "Reports", ".html")):
            if path:
                check_destination(path, what, (suffix,))
        images = QualityDataset(dataset, split=split)
        check_references({name: spec.metric_class for name, spec in specs.items()}, images)
        metrics = {name: create(name) for name in specs}
    store = out.with_name(f"{out.name}.scores") if out else None
    try:
        with errors(), progress() as move:
            results = run(metrics, images, store=store, device=device, progress=move, compare=compare)
    except KeyboardInterrupt:
        kept = f"What was scored is kept in {store}: the same command goes on from there."
        fail(f"Interrupted. {kept if store else 'Nothing was kept: with --out, it would have been.'}", 130)
    failed = [image for image in results["images"] if image["errors"]]
    if int(os.environ.get("RANK", 0)) == 0:
        for image in failed:
            for error in dict.fromkeys(image["errors"].values()):
                say(error if image["image"] in error else f"{image['image']}: {error}")
        with errors():
            if out and store:
                write_json(out, results)
                if not failed:
                    shutil.rmtree(store)
        _show_agreement(results)
        _show_comparisons(results)
        if compare is None and len(specs) > 1 and not results["comparisons"]:
            say(f"The {math.comb(len(specs), 2)} pairs of {len(specs)} metrics are not tested: --compare tests them.")
        if report:
            from ..evaluation.report import write_report

            with errors():
                write_report(results, report)
        if failed:
            again = f" The scores of the others are kept in {store}: mended, the same command scores these alone."
            say(f"{len(failed)} of {len(results['images'])} not scored by every metric.{again if store else ''}")
    raise typer.Exit(int(bool(failed)))


def _show_agreement(results: Mapping[str, Any]) -> None:
    from ..evaluation.trained_images import KINDS

    if stdout.file.isatty():
        _show_metrics(results)
        _show_groups(results)
    else:
        columns = ["metric", "group", "n", "images", "srcc", "srcc_low", "srcc_high", *NUMBERS[1:]]
        columns += [kind.replace(" ", "_") for kind in KINDS]
        rows = []
        for metric, group, row in sorted(_agreements(results), key=lambda line: line[1] != "all"):
            numbers = (row["srcc"], *(row["srcc_interval"] or (None, None)), *(row.get(key) for key in NUMBERS[1:]))
            seen = (row.get("seen", {}).get(kind, "-") for kind in KINDS)
            rows.append([metric, group, row["n"], row["images"], *map(digits, numbers), *seen])
        print_lines(stdout, [columns, *rows])
    for column, small in results["dataset"]["small_groups"].items():
        say(f"No row for {column} {', '.join(small)}: {sum(small.values())} images in groups of fewer than 5.")
    for metric, facts in results["metrics"].items():
        keys: dict[str, list[str]] = {}
        for key, reason in facts["agreement"]["reasons"].items():
            keys.setdefault(reason, []).append(key)
        for reason, lacking in keys.items():
            say(f"{metric} has no {', '.join(lacking)}: {reason}")


def _show_metrics(results: Mapping[str, Any]) -> None:
    """One row per metric: the numbers that fit on a line, and how many of the images it was trained on."""
    rows = []
    for metric, facts in results["metrics"].items():
        row = facts["agreement"]
        interval = "[{:.3f}, {:.3f}]".format(*row["srcc_interval"]) if row["srcc_interval"] else "-"
        numbers = [digits(row[key]) for key in SHORT]
        rows.append([metric, f"{row['n']}{_of(row)}", digits(row["srcc"]), interval, *numbers, _seen(row)])
    columns = ["metric", "n", "srcc", "95%_interval", *SHORT, "seen"]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    show(stdout, columns, rows, words=1, wrapped=["seen"])
    stdout.print("--out and a pipe get the other intervals, and plcc and rmse after 5 parameters\n", style="dim")


def _show_groups(results: Mapping[str, Any]) -> None:
    """SRCC in one row per group, with the metrics as columns, a few at a time."""
    groups: dict[str, dict[str, str]] = {}
    for metric, group, row in _agreements(results):
        notes = ", ".join(note for note in (_of(row) and f"n {row['n']}{_of(row)}", _seen(row)) if note)
        groups.setdefault(group, {})[metric] = digits(row["srcc"]) + (f" ({notes})" if notes else "")
    groups.pop("all")
    metrics = [*results["metrics"]]
    for start in range(0, len(metrics) if groups else 0, COLUMNS):
        some = metrics[start : start + COLUMNS]
        rows = [[group, *(cells.get(metric, "-") for metric in some)] for group, cells in groups.items()]
        show(stdout, ["srcc of", *some], rows[:SHOWN], words=1, wrapped=["srcc of", *some])
        stdout.print()
    if len(groups) > SHOWN:
        stdout.print(f"and {len(groups) - SHOWN} more groups, which --out or a pipe gets", style="dim")


def _of(row: Mapping[str, Any]) -> str:
    """The text " of N" where only some of the N images count."""
    return f" of {row['images']}" if row["n"] < row["images"] else ""


def _seen(row: Mapping[str, Any]) -> str:
    """How many of the images the metric was trained or chosen on, if any are known."""
    from ..evaluation.trained_images import describe

    return describe(row.get("seen", {}))


def _agreements(results: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yields metric, group of images or dimension, and the agreement on it."""
    for metric, facts in results["metrics"].items():
        yield metric, "all", facts["agreement"]
        for dimension, row in facts.get("dimensions", {}).items():
            yield metric, f"dimension {dimension}", row
        for column, labels in facts["groups"].items():
            for label, row in labels.items():
                yield metric, f"{column} {label}", row


def _show_comparisons(results: Mapping[str, Any]) -> None:
    """Prints the comparisons: below the agreement on a terminal, to stderr otherwise, so that a pipe gets one table."""
    if not results["comparisons"]:
        return
    console = stdout if stdout.file.isatty() else stderr
    columns = ["metric", "against", "n", *TESTS]
    rows = [
        [row["a"], row["b"], row["n"], *(_probability(row[key]) if "_p" in key else digits(row[key]) for key in TESTS)]
        for row in results["comparisons"]
    ]
    show(console, columns, rows, words=2, wrapped=columns)


def _probability(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
