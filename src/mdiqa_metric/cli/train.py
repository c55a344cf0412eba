"""`mdiqa-metric train`: retrains the models that come with the package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .choices import Device, check_destination, check_device
from .printing import digits, errors, print_lines, say, stderr

app = typer.Typer(no_args_is_help=True, help="Train the models that come with the package.")

Data = Annotated[Path, typer.Option(metavar="DIR", help="Folder with clive/table.csv, kodak24/, live/ and rebuild.py.")]
Out = Annotated[
    Path,
    typer.Option(
        metavar="FILE", help="Weights to write, .safetensors in float16, with figures in a .json next to them."
    ),
]
Work = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder for images made during training; next to FILE by default.")
]
Steps = Annotated[int | None, typer.Option(metavar="N", help="Steps of each stage, instead of the recipe's.")]
Seeds = Annotated[list[int] | None, typer.Option("--seed", metavar="N", help="Random seed; may be repeated.")]


@app.callback()
def main() -> None:
    """One command per model."""


@app.command("mdiqa-lite")
def mdiqa_lite(
    data: Data, out: Out, work: Work = None, steps: Steps = None, seed: Seeds = None, device: Device = "cpu"
) -> None:
    """Train MDIQA-lite on human opinions and on distortions of clean images; see train/mdiqa_lite.py.

    With several seeds, keeps the weights whose scores agree best with the opinions on the held-out photographs.
    """
    from ..atomic import write_json

    work = work or out.with_suffix(".work")
    with errors():
        check_device(device)
        check_destination(out, "Weights", (".safetensors",))
        from ..train.card import write_card
        from ..train.mdiqa_lite import Recipe, save, train
        from ..train.mdiqa_lite_data import save_trained_images

        runs: list[dict[str, Any]] = []
        for number in seed or [Recipe().seed]:
            recipe = Recipe(seed=number)
            if steps is not None:
                recipe = replace(recipe, steps=steps, overall_steps=steps)
            metric, figures = train(data, work, recipe, report_progress, device)
            srcc = "; ".join(f"{name} {digits(figures[name]['srcc'])}" for name in ("photographs", "distorted"))
            say(f"seed {number}: SRCC on held-out scenes: {srcc}")
            runs.append(figures)
            if max(runs, key=lambda run: run["photographs"]["srcc"] or -1) is figures:
                save(metric, out)
                best, kept = metric, figures
            write_json(out.with_suffix(".json"), {"kept": kept["recipe"]["seed"], "runs": runs})
            write_card(out, runs, kept)
        listed = out.with_suffix(".images.txt")
        save_trained_images(best, listed, data, work, Recipe().split_seed, chosen=len(runs) > 1)


def report_progress(facts: dict[str, Any]) -> None:
    """Prints one line of training progress."""
    print_lines(stderr, [[facts["stage"], f"step {facts['step']}", f"loss {facts['loss']:.3f}"]])
