"""Ours against what established implementations score with the same parameters; `--golden DIR` reads other files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mdiqa_metric.registry import manifest
from tests.golden import golden
from tests.rows import GOLDEN, GOLDEN_CASES, GOLDEN_OPTIONS, METRICS, ROWS, build, content

TOLERANCE = 1e-4


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" not in metafunc.fixturenames:
        return
    folder = metafunc.config.getoption("--golden") or GOLDEN
    known = {stem: row for row in ROWS for stem in row.goldens if not row.wrapper}
    cases = [
        pytest.param(known[path.stem], path, id=path.stem)
        for path in sorted(Path(folder).glob("*.json"))
        if path.stem in known
    ]
    assert cases, f"{folder} holds no golden file of a metric that tests/rows.py names"
    metafunc.parametrize(("row", "path"), cases)


def test_golden(row, path):
    """Scores, their float64 forms and the gradients of a golden file are ours, published key layout included."""
    data = content(path.stem, path.parent)
    # Further files of a class differ in parameters and options, which two images show; a folder of yours runs whole.
    if path.parent == GOLDEN and (row not in METRICS or path.stem != row.goldens[0]):
        data["cases"] = data["cases"][:2]
    if path.parent == GOLDEN:
        data["cases"] = data["cases"][GOLDEN_CASES.get(path.stem, slice(None))]
    metric = build(row.name, data, **dict(row.options) | GOLDEN_OPTIONS.get(path.stem, {}))
    assert metric.lower_is_better == data["lower_better"]
    largest = max(abs(case["score"]) for case in data["cases"])
    for case in data["cases"]:
        image, reference = _images(case, data["kind"])
        if "weight_ratio" in case["options"] or hasattr(metric, "set_weights"):
            metric.set_weights(case["options"].get("weight_ratio", [1.0] * len(metric.dimension_names)))
        score = metric(image, reference)
        if "dimensions" in case.get("extra", ()):
            _compare_dimensions(metric, image, case["extra"])
        torch.testing.assert_close(score.item(), case["score"], rtol=0, atol=TOLERANCE * largest)
        if "grad" in case or "score64" in case:
            image, reference = image.double().requires_grad_(), None if reference is None else reference.double()
            exact = metric.double()(image, reference)
            torch.testing.assert_close(exact.item(), case.get("score64", exact.item()), rtol=0, atol=1e-6 * largest)
            if not metric.differentiable:  # in float64 other values are rounded up
                image = image.detach().float().requires_grad_()
                reference = None if reference is None else reference.float()
                exact = metric.float()(image, reference)
            # Straight through a rounding a gradient is as recorded; through a table of shapes it is no gradient at all.
            if "grad" in case and (metric.differentiable or metric.full_reference):
                (gradient,) = torch.autograd.grad(exact.sum(), image)
                gradient = gradient * ((image > 0) & (image < 1)) if row.clamps else gradient
                _compare_gradients(gradient, case["grad"])
            metric.float()


def _compare_dimensions(metric, image, expected):
    """The dimension scores, and the weight branch's weights times the user's."""
    with torch.no_grad():
        weights = metric.instance_weights(image) * metric.user_weights(image)
        for ours, name in ((metric.dimensions(image), "dimensions"), (weights, "weights")):
            theirs = torch.tensor(expected[name])
            torch.testing.assert_close(ours[0], theirs, rtol=0, atol=TOLERANCE * theirs.abs().max().item())


def _images(case, kind):
    shape = [case["picture"][key] for key in ("seed", "height", "width")]
    clean = torch.from_numpy(golden.picture(*shape))[None]
    if kind == "NR":
        return clean, None
    return torch.from_numpy(golden.degraded(*shape))[None], clean


def _compare_gradients(gradient, expected):
    """Ours in float64, theirs in float32, where a ReLU near its kink may fall on the other side.

    So positions may differ by 3 % of the mean gradient (RankIQA's by 2 %), and one by a tenth of the largest; the norm
    and the mean tell whether more is wrong.
    """
    flat = gradient.flatten()
    scale = max(abs(value) for value in (*expected["first"], *expected["at"].values()))
    positions = [*enumerate(expected["first"]), *expected["at"].items()]
    errors = sorted(abs(flat[int(index)].item() - value) for index, value in positions)
    assert errors[-2] <= max(1e-3 * scale, 0.03 * expected["mean_abs"])
    assert errors[-1] <= 0.1 * scale
    torch.testing.assert_close(flat.norm().item(), expected["l2"], rtol=1e-3, atol=0)
    torch.testing.assert_close(flat.abs().mean().item(), expected["mean_abs"], rtol=1e-3, atol=0)


def test_every_metric_has_a_row_and_every_row_a_golden_file():
    """Adding a metric takes one file, one manifest row, one golden file and one test row; here is who forgot."""
    metrics = manifest()["metrics"]
    assert sorted(name for row in ROWS if not row.wrapper for name in (row.name, *row.same_class)) == sorted(metrics)
    for row in ROWS:
        for name in row.same_class:
            assert {**metrics[name], "weights": 0} == {**metrics[row.name], "weights": 0}
    assert not [row.name for row in ROWS if not row.goldens]
    stems = {stem for row in ROWS for stem in row.goldens}
    assert stems == {path.stem for path in GOLDEN.glob("*.json")}
