"""An evaluation as one HTML file that stands alone: tables, scatter plots, where metrics and people disagree most."""

from __future__ import annotations

import base64
import functools
import os
import re
from collections.abc import Callable, Mapping
from html import escape
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch.nn.functional import interpolate

from ..atomic import atomic_write
from ..data.images import read_image
from ..data.pairing import ImageError
from ..optional import import_optional
from .correlations import Array
from .logistic import Fit, logistic_fits
from .trained_images import describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

WORST = 6  # disagreements shown of each metric
THUMBNAIL = 160  # pixels of the longer side
_MANY = 2000  # dots beyond which a plot holds them as one image

# The page puts its own colors, light or dark, in the place of the first two; the others are seen well on both.
_INK, _LINE, _DOT, _MARK = "#1d2127", "#2a62a8", "#5f93cb", "#d4552a"


class _Scored(NamedTuple):
    """The images that a metric scored: rows, scores as it gives them, opinions, the curves that could be fitted."""

    rows: list[Row]
    scores: Array
    mos: Array
    sign: int
    fits: list[Fit]

    def worst(self) -> list[tuple[Row, float, float]]:
        """(row, score, predicted) of the largest residuals, from the 4-parameter curve where there is one: monotone."""
        if not self.fits:
            return []
        predicted = self.fits[0].predicted
        order = np.argsort(-np.abs(predicted - self.mos), kind="stable")[:WORST]
        return [(self.rows[i], float(self.scores[i]), float(predicted[i])) for i in order]


def scatter_plot(results: Mapping[str, Any], metric: str) -> Figure:
    """Opinions over one metric's scores, a dot an image, with the logistic curves that could be fitted.

    The `WORST` images, those farthest from the curve, are ringed and numbered as in the report. pyplot has no part in
    it: `figure.savefig(path)` writes it.

    Args:
        results: what `evaluate` returns.
        metric: a name among its metrics.

    Raises:
        ValueError: the results hold no such metric.
        ImportError: matplotlib is not installed.
    """
    scored = _scored(results, metric)
    figure: Figure = import_optional("matplotlib.figure").Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    many = len(scored.rows) > _MANY
    axes.scatter(scored.scores, scored.mos, s=14, color=_DOT, alpha=0.7, linewidths=0, rasterized=many)
    for fit in scored.fits:
        grid = np.linspace(scored.scores.min(), scored.scores.max(), 200)
        style: dict[str, Any] = {"linewidth": 1.8} if fit.name == "logistic4" else {"linewidth": 1, "linestyle": "--"}
        label = f"{len(fit.parameters)}-parameter logistic"
        axes.plot(grid, fit.curve(scored.sign * grid), color=_LINE, label=label, **style)
    for number, (row, score, _) in enumerate(scored.worst(), 1):
        place = (score, row["mos"])
        axes.plot(*place, "o", markersize=8, markerfacecolor="none", markeredgecolor=_MARK, markeredgewidth=1.2)
        axes.annotate(str(number), place, xytext=(6, 4), textcoords="offset points", color=_MARK, fontsize=9)
    better = "lower" if scored.sign < 0 else "higher"
    axes.set_xlabel(f"{metric} ({better} is better)", color=_INK, parse_math=False)
    axes.set_ylabel("mos", color=_INK)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)
    axes.grid(color="#8a8f98", alpha=0.2, linewidth=0.6)
    axes.set_axisbelow(True)
    if scored.fits:
        axes.legend(frameon=False, fontsize=9, labelcolor=_INK)
    return figure


def write_report(results: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes what `evaluate` returns as one HTML file, whole or not at all.

    Style, script, plots and thumbnails lie inside the file; it asks nothing of the network. Images are read from the
    data set's root; where one cannot be read, the reason stands in its place.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    path = Path(path)
    jinja2 = import_optional("jinja2")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "p": _p_value, "key": _sort_key, "seen": describe}
    template = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    page = template.render(_page(results))
    with atomic_write(path) as partial:
        # A file name that is no Unicode could not be written as it is.
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")


def _scored(results: Mapping[str, Any], metric: str) -> _Scored:
    if metric not in results["metrics"]:
        raise ValueError(f"The results hold no metric {metric}, expected one of {', '.join(results['metrics'])}.")
    rows = [row for row in results["images"] if row["scores"].get(metric) is not None and row["mos"] is not None]
    scores = np.array([row["scores"][metric] for row in rows], np.float64)
    mos = np.array([row["mos"] for row in rows], np.float64)
    sign = -1 if results["metrics"][metric]["lower_is_better"] else 1
    fits = logistic_fits(sign * scores, mos)
    return _Scored(rows, scores, mos, sign, [fit for fit in fits if fit.converged])


def _page(results: Mapping[str, Any]) -> dict[str, Any]:
    """All that the template names."""
    from .. import __version__

    dataset, metrics = results["dataset"], results["metrics"]
    tables = _tables(metrics)
    thumbnail = functools.cache(functools.partial(_thumbnail, Path(dataset["root"])))
    return {
        "version": __version__,
        "dataset": dataset,
        "name": "/".join(Path(dataset["table"]).parts[-2:]),
        "interval_method": next(facts["agreement"]["interval_method"] for facts in metrics.values()),
        "tables": tables,
        "seen": any(describe(facts["agreement"].get("seen", {})) for facts in metrics.values()),
        "comparisons": results["comparisons"],
        "sections": [_section(results, name, f"plot{index}-", thumbnail) for index, name in enumerate(metrics)],
        "paired": any(row.get("reference") for row in results["images"]),
        "failures": [(row["image"], *error) for row in results["images"] for error in row["errors"].items()],
    }


def _tables(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tables of agreement: title, leading headers, rows of labels and an agreement, whether these have
    curves, and where the SRCC axis starts."""
    whole = [{"labels": [name], "agreement": facts["agreement"]} for name, facts in metrics.items()]
    tables: list[dict[str, Any]] = [{"title": "All images", "headers": ["metric"], "rows": whole, "curves": True}]
    columns = dict.fromkeys(column for facts in metrics.values() for column in facts["groups"])
    for column in columns:
        rows = [
            {"labels": [label, name], "agreement": agreement}
            for name, facts in metrics.items()
            for label, agreement in facts["groups"].get(column, {}).items()
        ]
        tables.append({"title": f"By {column}", "headers": [column, "metric"], "rows": rows, "curves": False})
    dimensions = [
        {"labels": [name, dimension], "agreement": agreement}
        for name, facts in metrics.items()
        for dimension, agreement in facts.get("dimensions", {}).items()
    ]
    if dimensions:
        title = "Dimensions, each against the attribute of its name"
        tables.append({"title": title, "headers": ["metric", "dimension"], "rows": dimensions, "curves": True})
    for table in tables:
        found = [row["agreement"] for row in table["rows"] if row["agreement"]["srcc"] is not None]
        lows = [min([agreement["srcc"], *(agreement["srcc_interval"] or [])]) for agreement in found]
        table["lowest"] = -1 if min(lows, default=0) < 0 else 0
    return tables


def _section(
    results: Mapping[str, Any], name: str, prefix: str, thumbnail: Callable[[str], dict[str, str]]
) -> dict[str, Any]:
    worst = [
        {
            "image": row["image"],
            "thumbnails": [thumbnail(row[role]) for role in ("image", "reference") if row.get(role)],
            "mos": row["mos"],
            "score": score,
            "predicted": predicted,
        }
        for row, score, predicted in _scored(results, name).worst()
    ]
    plot = _svg(scatter_plot(results, name), prefix, f"Opinions over the scores of {name}, a dot an image")
    return {"name": name, **results["metrics"][name], "plot": plot, "worst": worst}


def _svg(figure: Figure, prefix: str, label: str) -> str:
    """A figure as markup to stand within HTML, in the page's colors and font."""
    from matplotlib import rc_context

    file = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(file, format="svg", transparent=True, metadata=nothing, dpi=150)
    markup = file.getvalue()
    markup = markup[markup.index("<svg") :]
    # Ids hold for the whole page, on which several plots stand.
    markup = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", markup)
    markup = markup.replace(_INK, "currentColor").replace(_LINE, "var(--line)")
    return markup.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


def _thumbnail(root: Path, name: str) -> dict[str, str]:
    """The image as a data URI, or why there is none."""
    from matplotlib.image import imsave

    try:
        image = read_image(root / name)
    except ImageError as error:
        return {"uri": "", "problem": str(error)}
    height, width = image.shape[2:]
    scale = min(1, THUMBNAIL / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = interpolate(image, size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    file = BytesIO()
    imsave(file, (small * 255).round().byte().permute(1, 2, 0).numpy(), format="jpeg", pil_kwargs={"quality": 80})
    return {"uri": f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}", "problem": ""}


def _number(value: float | None, digits: int | None = 3) -> str:
    """Decimals of a correlation, or four significant digits of what has a unit; a dash where there is none."""
    if value is None:
        return "\N{EN DASH}"
    return (f"{value:#.4g}".rstrip(".") if digits is None else f"{value:.{digits}f}").replace("-", "\N{MINUS SIGN}")


def _p_value(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _sort_key(value: float | None) -> str:
    return "" if value is None else repr(value)
